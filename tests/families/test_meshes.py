"""Packed rows of the families on eight devices and in parts, against one device, with dropout."""

import functools

import jax
import numpy as np
import pytest

from bertjax.config import MeshConfig
from tests.factory import small_config
from tests.families.shapes import DROPOUT, packed_batch, shape_of
from tests.training.step.test_update import MESHES, sums_and_gradients

pytestmark = pytest.mark.slow

MODELS = {
    "modernbert": shape_of("modernbert", **DROPOUT),
    "modernbert, hash": shape_of("modernbert", **DROPOUT, dropout_bits="hash"),
    "deberta-v2": shape_of("deberta-v2", **DROPOUT),
    "gpt_bert": shape_of("gpt_bert", **DROPOUT),
    "gpt_bert, hash": shape_of("gpt_bert", **DROPOUT, dropout_bits="hash"),
    # One head of keys and values, and heads of queries on two or four devices.
    "modernbert, one key-value head": shape_of("modernbert", **DROPOUT, num_key_value_heads=1),
    "eurobert": shape_of("eurobert", **DROPOUT),
    "neobert": shape_of("neobert", **DROPOUT),
}
EIGHT = {name: mesh for name, mesh in MESHES.items() if name != "one"} | {
    "data 2, tensor 4": MeshConfig(data=2, tensor=4),
}
# Of the second form of dropout and the other families, the meshes that cut the most axes.
FEW = ("data 2, tensor 4", "fsdp 2, tensor 2, sequence 2")
WHOLE = ("modernbert", "deberta-v2", "gpt_bert")
CASES = [(name, mesh) for name in MODELS for mesh in EIGHT if name in WHOLE or mesh in FEW]


@pytest.fixture(scope="module")
def batch():
    return packed_batch(0, 8)


def computed(name, batch, mesh=MESHES["one"], parts=1):
    config = small_config(
        model=MODELS[name],
        # These models have no head for sentence pairs.
        data={"sentence_objective": "none"},
        mesh=mesh,
        train={"gradient_accumulation_steps": parts},
    )
    return sums_and_gradients(config, batch)


@pytest.fixture(scope="module")
def on_one_device(batch):
    return functools.cache(lambda name: computed(name, batch))


def assert_same(largest, where, found, expected):
    (gradients, sums), (gradients_of_one, sums_of_one) = found, expected
    for a, b in zip(sums, sums_of_one, strict=True):
        largest(f"losses, {where}", abs(a - b) / max(abs(b), 1), 1e-6)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradients_of_one), strict=True):
        difference = np.abs(a - b).max() / max(np.abs(b).max(), 1e-3)
        largest(f"gradients, {where}", difference, 1e-5)


@pytest.mark.parametrize(("name", "mesh"), CASES)
def test_every_mesh_gives_the_losses_and_gradients_of_one_device(
    largest, on_one_device, batch, name, mesh
):
    found = computed(name, batch, EIGHT[mesh])
    assert_same(largest, f"{name}, {mesh}", found, on_one_device(name))


@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        ("modernbert", "one"),
        ("modernbert, hash", "one"),
        ("deberta-v2", "one"),
        ("gpt_bert", "one"),
        ("gpt_bert, hash", "one"),
        ("modernbert", "data 4, tensor 2"),
        ("gpt_bert", "data 4, tensor 2"),
    ],
)
def test_accumulation_has_the_dropout_of_the_whole_batch(largest, on_one_device, batch, name, mesh):
    found = computed(name, batch, MESHES[mesh], parts=2)
    assert_same(largest, f"{name}, in two parts", found, on_one_device(name))
