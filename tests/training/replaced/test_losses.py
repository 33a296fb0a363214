"""Twenty steps of ELECTRA beside PyTorch's, written from the paper with the modules of transformers."""

import dataclasses

import numpy as np
import pytest

from bertjax.interop.checkpoints.model_config import huggingface_config
from bertjax.interop.checkpoints.tensor_mapping import Tensors, export_tensors, import_params
from bertjax.interop.checkpoints.tensor_names import torch_dialect
from bertjax.model.functional import GENERATOR
from bertjax.training.replaced import networks
from tests.training.replaced.models import MODEL, detection_config
from tests.training.replaced.paper_steps import OPTIMIZER, STEPS, assert_steps_follow

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = detection_config(
    dataclasses.replace(MODEL, hidden_size=32, embedding_size=24, initializer_range=0.1),
    train={"steps": STEPS},
    optimizer=OPTIMIZER,
)
NAMES = {"discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}


def torch_networks(objective, params):
    """Both networks in PyTorch with our parameters and one module of embeddings."""
    own = {name: leaves for name, leaves in params.items() if name != GENERATOR}
    found = {}
    for name, config, leaves in (
        ("discriminator", objective.model, own),
        ("generator", objective.generator, networks.generator_params(params)),
    ):
        values = huggingface_config("electra", config, 0)
        del values["model_type"]
        settings = transformers.ElectraConfig(**values, attn_implementation="eager")
        network = getattr(transformers, NAMES[name])(settings).eval()
        tensors = export_tensors(leaves, torch_dialect("electra"))
        loaded = {key: torch.tensor(np.array(array)) for key, array in tensors}
        missing = network.load_state_dict(loaded, strict=False)
        assert not missing.unexpected_keys
        found[name] = network
    discriminator, generator = found["discriminator"], found["generator"]
    # PyTorch gives the row of padding no gradient, but a generator may draw this word too.
    discriminator.electra.embeddings.word_embeddings.padding_idx = None
    generator.electra.embeddings = discriminator.electra.embeddings
    generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight
    return discriminator, generator


def torch_gradients(objective, discriminator, generator):
    """The gradients of both networks, as ours."""
    trees = []
    for network, config in (
        (discriminator, objective.model),
        (generator, objective.generator),
    ):
        found = {name: p.grad.numpy() for name, p in network.named_parameters()}
        shapes = {name: array.shape for name, array in found.items()}
        tensors = Tensors("the reference", shapes, found.__getitem__)
        trees.append(import_params(config, torch_dialect("electra"), tensors))
    own, theirs = trees
    kept = {
        name: leaves for name, leaves in theirs["embeddings"].items() if name == networks.PROJECTION
    }
    return {**own, GENERATOR: {**theirs, "embeddings": kept}}


@pytest.mark.slow
def test_twenty_steps_of_electra_follow_the_paper_in_pytorch(largest):
    assert_steps_follow(largest, "ELECTRA", CONFIG, torch_networks, torch_gradients, joint=True)
