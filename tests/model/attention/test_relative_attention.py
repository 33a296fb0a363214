import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.attention.relative_attention import (
    RelativeVectors,
    bucket_indices,
    relative_scores,
)
from tests.factory import SMALL_MODEL


def config_of(rows, longest=64):
    return dataclasses.replace(
        SMALL_MODEL, positions="none", relative_positions=rows, max_position_embeddings=longest
    )


@pytest.mark.parametrize("rows", [15, 16, 63, 64])
def test_scores_are_those_of_each_pair_with_the_row_of_its_distance(rows):
    config, rng = config_of(rows), np.random.default_rng(rows)
    length, heads, width = 40, 2, 8
    q, k = (rng.normal(size=(3, length, heads, width)).astype(np.float32) for _ in range(2))
    rq, rk = (rng.normal(size=(rows, heads, width)).astype(np.float32) for _ in range(2))
    found = relative_scores(config, jnp.asarray(q), jnp.asarray(k), RelativeVectors(rq, rk))
    table = bucket_indices(config, length)
    expected = np.zeros((3, heads, length, length))
    for i in range(length):
        for j in range(length):
            row = table[i - j + length - 1]
            expected[:, :, i, j] += np.einsum("bhk,hk->bh", q[:, i], rk[row])
            expected[:, :, i, j] += np.einsum("bhk,hk->bh", k[:, j], rq[row])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("rows", [16, 15])
def test_near_distances_have_a_row_each_and_far_ones_share_rows_of_growing_width(rows):
    table = bucket_indices(config_of(rows), 64)
    middle, zero = 4, rows // 2
    assert table[63] == zero
    np.testing.assert_array_equal(table[63 - middle : 64 + middle], zero + np.arange(-4, 5))
    assert (np.diff(table) >= 0).all()
    widths = np.bincount(table[63 + middle :] - zero)[middle + 1 :]
    assert (np.diff(widths) >= 0).all()
    # The rows on both sides are as many.
    np.testing.assert_array_equal(table - zero, -(table[::-1] - zero))


def test_distances_beyond_the_largest_are_in_the_last_row():
    config = dataclasses.replace(config_of(15), relative_max_distance=32)
    table = bucket_indices(config, 200)
    assert set(table[200 + 31 :]) == {14}
    assert set(table[: 199 - 31]) == {0}


@pytest.mark.parametrize("longest", [4, 5])
def test_all_distances_of_short_rows_have_a_row_each_and_none_warns(longest, recwarn):
    table = bucket_indices(config_of(16, longest), 8)
    near = np.arange(-4, 5)
    np.testing.assert_array_equal(table[7 - 4 : 7 + 5], 8 + near)
    assert set(table[7 + 5 :]) == {15}
    assert not recwarn.list


@pytest.mark.parametrize(
    ("buckets", "longest"),
    [(256, 512), (256, 1024), (32, 128), (32, 512), (8, 64), (6, 13), (64, 257), (12, 77)],
)
def test_each_distance_up_to_1024_has_the_row_of_the_reference(buckets, longest):
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    distances = torch.arange(-1024, 1025)
    expected = reference.make_log_bucket_position(distances, buckets, longest) + buckets
    expected = expected.clamp(0, 2 * buckets - 1).numpy()
    table = bucket_indices(config_of(2 * buckets, longest), 1025)
    np.testing.assert_array_equal(table, expected)
