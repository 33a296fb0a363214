import re
from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import MeshConfig
from bertjax.masking.dynamic import greedy, mask_batch
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import batch_sharding
from bertjax.training.step import MASKS, random_key
from tests.masking.test_selection import MASKINGS, VOCABULARY, config, random_rows
from tests.masking.test_static import drawn_units, plain_greedy

jitted_greedy = jax.jit(greedy)


@given(seed=st.integers(0, 2**31), length=st.sampled_from([1, 5, 30]), largest=st.integers(0, 12))
def test_greedy_is_the_plain_loop(seed, length, largest):
    units = drawn_units(seed, 20, length, largest)
    assert np.array_equal(jitted_greedy(*units), plain_greedy(*units))


def test_a_smaller_later_unit_is_taken_where_a_larger_earlier_one_does_not_fit():
    sizes = np.array([[5, 2, 4, 0, 1, 1]], np.int32)
    order = np.array([[1, 3, 0, 2, 5, 4]], np.int32)
    assert greedy(sizes, order, np.array([[3]], np.int32)).tolist() == [
        [False, True, False, False, False, True]
    ]


def features(masking):
    batch = random_rows(0, 16, 40)
    batch["word_starts"] = batch["word_starts"].astype(np.int32)
    if masking == "token":
        del batch["word_starts"]
    return batch


@cache
def masks(masking, devices, seed, step):
    """The masks that a step's key gives on a mesh of `devices` devices that share the batch."""
    mesh = make_mesh(MeshConfig(data=devices), jax.devices()[:devices])
    batch = global_batch(mesh, features(masking), 16)
    masked = _jitted(masking, batch_sharding(mesh))(batch, seed, step)
    assert len(masked["input_ids"].addressable_shards) == devices
    return jax.device_get(masked)


@cache
def _jitted(masking, layout):
    options = config(masking, 0.3, 12)

    def make(batch, seed, step):
        return mask_batch(batch, options, VOCABULARY, random_key(seed, step, MASKS))

    return jax.jit(make, in_shardings=(layout, None, None), out_shardings=layout)


@pytest.mark.parametrize("masking", MASKINGS)
def test_eight_devices_make_the_masks_of_one(masking):
    on_one, on_eight = masks(masking, 1, 0, 7), masks(masking, 8, 0, 7)
    assert on_one.keys() == on_eight.keys()
    for name, values in on_one.items():
        assert np.array_equal(values, on_eight[name]), name
    assert on_one["masked_lm_weights"].sum() > 16


@pytest.mark.parametrize("masking", MASKINGS)
def test_another_step_or_seed_makes_other_masks(masking):
    first, *others = (
        masks(masking, 1, seed, step)["masked_lm_positions"]
        for seed, step in [(0, 7), (0, 8), (1, 7)]
    )
    assert not any(np.array_equal(first, other) for other in others)


def test_the_model_does_not_see_where_words_begin():
    masked = masks("whole_word", 1, 0, 7)
    predictions = {"masked_lm_positions", "masked_lm_ids", "masked_lm_weights"}
    assert masked.keys() == {"input_ids", "input_mask"} | predictions


@pytest.mark.parametrize("masking", MASKINGS)
def test_no_device_fetches_the_rows_of_others(masking):
    """Devices exchange a single bit: whether any row needs another pass."""
    mesh = make_mesh(MeshConfig(data=8), jax.devices())
    layout = batch_sharding(mesh)
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in features(masking).items()}
    program = _jitted(masking, layout).lower(shapes, 0, 0).compile().as_text()
    assert not re.findall(
        r"(?:all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", program
    )
    assert all(
        "pred[]" in line
        for line in program.splitlines()
        if re.search(r" all-reduce(-start)?\(", line)
    )
