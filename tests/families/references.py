"""Small random models of the families, as the reference computes them and as ours."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from torch import Tensor, nn

from bertjax.config import ModelConfig
from bertjax.interop.checkpoints import huggingface
from bertjax.interop.checkpoints.tensor_mapping import without_groups
from tests.families.gpt_bert_torch import GptBert, GptBertConfig
from tests.families.neobert_torch import NeoBert, NeoBertConfig


class Shape(NamedTuple):
    """Sizes of a model and of its rows."""

    vocab: int
    heads: int
    key_value_heads: int
    head_width: int
    layers: int
    intermediate: int
    embedding: int
    """Width of the embeddings of the families that project them."""
    buckets: int
    """Number of buckets of relative distances on each side."""
    window: int
    global_every: int
    """Distance of global layers from each other, where the others have windows."""
    length: int

    @property
    def width(self) -> int:
        return self.heads * self.head_width


def drawn_shape(seed: int, largest_layers: int = 7) -> Shape:
    """Draw a shape whose rows are more than four windows long."""
    rng = np.random.default_rng(seed)
    heads = int(rng.choice([2, 3, 4, 6]))
    divisors = [count for count in range(1, heads) if heads % count == 0]
    window = 2 * int(rng.integers(2, 5))
    return Shape(
        vocab=int(rng.integers(40, 200)),
        heads=heads,
        key_value_heads=int(rng.choice(divisors)),
        head_width=2 * int(rng.integers(2, 9)),
        layers=int(rng.integers(2, largest_layers + 1)),
        intermediate=int(rng.integers(8, 100)),
        embedding=int(rng.integers(8, 40)),
        buckets=2 * int(rng.integers(2, 7)),
        window=window,
        global_every=int(rng.integers(2, 4)),
        length=4 * window + int(rng.integers(2, 12)),
    )


class States(NamedTuple):
    """What a reference computes of a batch."""

    layers: tuple[Tensor, ...]
    """Hidden states from the embeddings to the last layer, or those of the last alone."""
    logits_BxLxV: Tensor


def _sizes(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
    }


# No dropout, by the names that most of the families have.
_STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def _of_transformers(
    name: str, fields: Callable[[Shape], dict[str, Any]]
) -> Callable[[Shape], nn.Module]:
    """Return the function that makes the model for masked words of a family."""

    def made(shape: Shape) -> nn.Module:
        config = getattr(transformers, f"{name}Config")
        values = {"pad_token_id": 0, **fields(shape)}
        model = getattr(transformers, f"{name}ForMaskedLM")
        return model(config(**values, attn_implementation="eager"))

    return made


def _bert(shape: Shape) -> dict[str, Any]:
    return _sizes(shape) | _STILL | {"max_position_embeddings": shape.length + 3}


def _roberta(shape: Shape) -> dict[str, Any]:
    # The first position of a row is that after the position of padding.
    positions = shape.length + 5
    return _bert(shape) | {
        "pad_token_id": 1,
        "max_position_embeddings": positions,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    }


def _with_projected_embeddings(shape: Shape) -> dict[str, Any]:
    return _bert(shape) | {"embedding_size": shape.embedding}


def _distilbert(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocab,
        "dim": shape.width,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "hidden_dim": shape.intermediate,
        "max_position_embeddings": shape.length + 3,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }


def _modernbert(shape: Shape) -> dict[str, Any]:
    return _sizes(shape) | {
        "max_position_embeddings": shape.length + 3,
        "local_attention": shape.window,
        "global_attn_every_n_layers": shape.global_every,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    }


def _eurobert(shape: Shape) -> dict[str, Any]:
    return _sizes(shape) | {
        "max_position_embeddings": shape.length + 3,
        "num_key_value_heads": shape.key_value_heads,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "mask_token_id": 3,
    }


def _ultrabert(shape: Shape) -> dict[str, Any]:
    return _eurobert(shape) | {
        "sliding_window": shape.window // 2,  # on each side
        "prediction_head_size": shape.embedding,
    }


def _deberta_v3(shape: Shape) -> dict[str, Any]:
    return _bert(shape) | {
        "relative_attention": True,
        "position_buckets": shape.buckets,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "max_relative_positions": -1,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
        "legacy": False,
    }


def _gpt_bert(shape: Shape) -> nn.Module:
    return GptBert(
        GptBertConfig(
            **_sizes(shape),
            max_position_embeddings=shape.length + 3,
            position_bucket_size=shape.buckets,
        )
    )


def _neobert(shape: Shape) -> nn.Module:
    return NeoBert(NeoBertConfig(**_sizes(shape), max_length=shape.length + 3))


MODELS: dict[str, Callable[[Shape], nn.Module]] = {
    "BERT": _of_transformers("Bert", _bert),
    "RoBERTa": _of_transformers("Roberta", _roberta),
    "XLM-RoBERTa": _of_transformers("XLMRoberta", _roberta),
    "ALBERT": _of_transformers("Albert", _with_projected_embeddings),
    "ELECTRA": _of_transformers("Electra", _with_projected_embeddings),
    "DistilBERT": _of_transformers("DistilBert", _distilbert),
    "ModernBERT": _of_transformers("ModernBert", _modernbert),
    "EuroBERT": _of_transformers("EuroBert", _eurobert),
    "UltraBERT": _of_transformers("Ultrabert", _ultrabert),
    "NomicBERT": _of_transformers("NomicBert", _bert),
    "GTE": _of_transformers("Gte", _bert),
    "DeBERTa-v3": _of_transformers("DebertaV2", _deberta_v3),
    "GPT-BERT": _gpt_bert,
    "NeoBERT": _neobert,
}
"""For each family the function that makes its reference."""


def reference(family: str, shape: Shape, seed: int, scale: float = 0.05) -> nn.Module:
    """Return a random model of the family in training mode.

    `scale` is the deviation of matrices: with a larger one attention is sharper, and rounding is
    magnified. Biases and scales of norms are moved off 0 and 1, so that a missing one shows.
    """
    torch.manual_seed(seed)
    model = MODELS[family](shape).train()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim > 1:
                parameter.copy_(scale * noise)
            else:
                parameter.add_(0.1 * noise)
    return model


def states_of(
    model: nn.Module, ids_BxL: np.ndarray, mask_BxL: np.ndarray, types_BxL: np.ndarray
) -> States:
    """Return what the reference computes of padded rows of one input each."""
    ids, mask = torch.from_numpy(ids_BxL).long(), torch.from_numpy(mask_BxL).long()
    if isinstance(model, GptBert):
        outputs = model(ids, mask)
        # Ours are normalized after the last layer; there this is a part of the head.
        return States((model.classifier["nonlinearity"][0](outputs[0]),), outputs[1])
    if isinstance(model, NeoBert):
        outputs = model(ids, mask)
        return States((outputs.hidden_BxLxD,), outputs.logits_BxLxV)
    arguments = {"input_ids": ids, "attention_mask": mask, "output_hidden_states": True}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        arguments["token_type_ids"] = torch.from_numpy(types_BxL).long()
    outputs = model(**arguments)
    return States(outputs.hidden_states, outputs.logits)


def ours(model: nn.Module, folder: Path) -> tuple[ModelConfig, Any]:
    """Return our configuration and parameters of a reference, by way of its files in `folder`."""
    if isinstance(model, transformers.PreTrainedModel):
        model.save_pretrained(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        values = dataclasses.asdict(model.config)
        if isinstance(model, NeoBert):
            # The published files of the other have no such field.
            values["model_type"] = "neobert"
        (folder / "config.json").write_text(json.dumps(values))
    config, params = huggingface.load(folder)
    # A head for masked words may serve tasks as the pooler too; here it has its own use alone.
    # An imported GPT-BERT reads the state before a masked word; no reference here does.
    config = dataclasses.replace(config, heads=("mlm",), mlm_shifted=False)
    return config, jax.tree.map(jnp.asarray, without_groups(params, {"pooler"}))


def gradients_as_ours(model: nn.Module, folder: Path) -> Any:
    """Return the gradients of a reference's parameters as a tree like our parameters.

    They are written and read as weights are, so that no second table of names can be wrong.
    """
    of_gradients = copy.deepcopy(model)
    pairs = zip(model.parameters(), of_gradients.parameters(), strict=True)
    with torch.no_grad():
        for parameter, target in pairs:
            target.copy_(torch.zeros_like(target) if parameter.grad is None else parameter.grad)
    config, gradients = ours(of_gradients, folder)
    if not config.first_norm:
        # The first layer has no such norm in the files, and an unused row in ours.
        for name, leaf in gradients["encoder"]["layers"]["attention_layer_norm"].items():
            gradients["encoder"]["layers"]["attention_layer_norm"][name] = leaf.at[0].set(0)
    return gradients
