import dataclasses

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import MeshConfig, load_config
from bertjax.estimate.hardware.chips import CHIPS
from bertjax.estimate.hardware.slices import Slice
from bertjax.estimate.search import Bounds, candidates, find_boundary
from tests.factory import small_config


@given(st.integers(0, 3000), st.integers(1, 2000), st.integers(1, 2000))
def test_bisection_finds_the_boundary_and_asks_nothing_twice(edge, start, largest):
    tried = []

    def fits(count):
        tried.append(count)
        return count <= edge

    bounds = find_boundary(fits, start, largest, precision=0)
    assert bounds == Bounds(min(edge, largest), None if edge >= largest else edge + 1)
    assert len(tried) == len(set(tried))
    assert all(1 <= count <= largest for count in tried)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_a_rough_bisection_is_as_rough_as_it_says_and_asks_seldom(edge, start):
    tried = []
    bounds = find_boundary(
        lambda count: tried.append(count) or count <= edge, start, 4096, precision=16
    )
    assert bounds.fits <= edge < bounds.refused
    assert bounds.refused - bounds.fits <= max(1, bounds.fits // 16)
    assert len(tried) <= 18


def eight_devices(slices=1):
    return Slice("v5e:2x4", slices, CHIPS["v5e"], jax.devices()[:8])


def meshes(config, slice_=None):
    return {
        tuple(dataclasses.astuple(c.mesh)) for c in candidates(config, slice_ or eight_devices())
    }


def test_candidates_begin_with_the_plainest_and_are_all_different():
    config = small_config(train={"batch_size": 64}, mesh={"data": -1})
    configs = list(candidates(config, eight_devices()))
    assert configs[0].mesh == MeshConfig(data=8)
    assert configs[0].model.remat == "none"
    assert len({(c.mesh, c.model.remat) for c in configs}) == len(configs)
    assert {c.model.remat for c in configs} >= {"none", "full"}
    assert all(c.train == config.train for c in configs)


def test_candidates_divide_the_devices_the_model_and_the_batch():
    # replica, data, fsdp, tensor, sequence; two heads, so that no more than two share a product.
    assert meshes(small_config(train={"batch_size": 64})) == {
        (1, 8, 1, 1, 1), (1, 1, 8, 1, 1), (1, 2, 4, 1, 1), (1, 4, 2, 1, 1),
        (1, 4, 1, 2, 1), (1, 1, 4, 2, 1), (1, 2, 2, 2, 1),
    }  # fmt: skip
    few = meshes(small_config(train={"batch_size": 4}))
    assert few == {(1, 4, 1, 2, 1), (1, 1, 4, 2, 1), (1, 2, 2, 2, 1)}


def test_slices_share_the_batch_only():
    tried = meshes(small_config(train={"batch_size": 64}), eight_devices(slices=2))
    assert {mesh[0] for mesh in tried} == {2}


@pytest.mark.parametrize(("length", "cut"), [(128, {1}), (512, {1, 2, 4})])
def test_rows_are_cut_where_they_are_long(length, cut):
    config = small_config(
        model={"max_position_embeddings": 512},
        data={"max_seq_length": length, "max_predictions_per_seq": 80},
        train={"batch_size": 64},
    )
    assert {mesh[4] for mesh in meshes(config)} == cut


def test_rows_are_not_cut_where_our_kernels_run(slice_2x2):
    config = load_config("configs/fast/base_phase2.py")
    assert {candidate.mesh.sequence for candidate in candidates(config, slice_2x2)} == {1}
