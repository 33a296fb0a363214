"""The reference implementation with the same weights: PyTorch models of `transformers`, and ours
from them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from bertjax.config import ModelConfig
from bertjax.interop.checkpoints.model_config import huggingface_config
from bertjax.interop.checkpoints.tensor_mapping import Tensors, export_tensors, import_params
from bertjax.interop.checkpoints.tensor_names import torch_dialect


def reference_model(config: ModelConfig, seed: int, kind="BertForPreTraining"):
    """A PyTorch model of `config` in evaluation mode, every parameter random, none at its initial 0
    or 1.
    """
    torch.manual_seed(seed)
    values = {
        name: value
        for name, value in huggingface_config("bert", config, 0).items()
        if name != "model_type"
    }
    model = getattr(transformers, kind)(
        transformers.BertConfig(**values, attn_implementation="eager")
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * config.initializer_range)
    return model


def params_of(config: ModelConfig, model, gradients=False):
    """Our parameters with the numbers of a PyTorch model's, or of their gradients."""
    found = {
        name: (p.grad if gradients else p.detach()).numpy()
        for name, p in model.named_parameters()
        if p.grad is not None or not gradients
    }
    shapes = {name: array.shape for name, array in found.items()}
    params = import_params(
        config, torch_dialect("bert"), Tensors("the reference", shapes, found.__getitem__)
    )
    return jax.tree.map(jnp.asarray, params)


def tensors_of(params):
    """Parameters or gradients of ours by the reference's names, in its layout."""
    return dict(export_tensors(params, torch_dialect("bert")))


def reference_batch(batch):
    """One of our batches as the arguments of `BertForPreTraining`."""
    labels = np.full(batch["input_ids"].shape, -100)
    for row in range(len(labels)):
        for position, word, weight in zip(
            batch["masked_lm_positions"][row],
            batch["masked_lm_ids"][row],
            batch["masked_lm_weights"][row],
            strict=True,
        ):
            if weight:
                labels[row, position] = word
    return {
        "input_ids": torch.tensor(batch["input_ids"], dtype=torch.long),
        "attention_mask": torch.tensor(batch["input_mask"], dtype=torch.long),
        "token_type_ids": torch.tensor(batch["segment_ids"], dtype=torch.long),
        "labels": torch.tensor(labels, dtype=torch.long),
        "next_sentence_label": torch.tensor(batch["next_sentence_labels"], dtype=torch.long),
    }
