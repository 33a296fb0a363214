from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.compression.static import weighting
from bertjax.compression.static.weighting import (
    counted,
    principal_components,
    sif_weights,
    zipf_probabilities,
)
from tests.compression.static.teachers import WORDS, wordpiece


def drawn(count, width, seed):
    """Vectors that vary more along some directions than along others, around a far point."""
    rng = np.random.default_rng(seed)
    scales = np.geomspace(1, 0.05, width)
    return (rng.normal(size=(count, width)) * scales + 3).astype(np.float32)


@given(st.integers(3, 40), st.integers(2, 12), st.integers(0, 10**6), st.data())
def test_components_are_those_of_a_singular_value_decomposition(count, width, seed, data):
    dimensions = data.draw(st.integers(1, min(width, count - 1)))
    vectors = drawn(count, width, seed)
    found = principal_components(vectors, dimensions)
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    # Without regard to directions: the products of all pairs of vectors.
    wanted = left[:, :dimensions] * values[:dimensions]
    products = found.vectors.astype(np.float64) @ found.vectors.T
    np.testing.assert_allclose(products, wanted @ wanted.T, atol=1e-4)
    share = (values[:dimensions] ** 2).sum() / (values**2).sum()
    assert found.explained == pytest.approx(share, abs=1e-9)
    np.testing.assert_allclose(found.vectors.mean(0), 0, atol=1e-6)


def test_all_components_keep_every_distance():
    vectors = drawn(30, 8, 1)
    found = principal_components(vectors, 8)
    assert found.explained == pytest.approx(1)
    for one, other in ((0, 1), (4, 29)):
        before = np.linalg.norm(vectors[one] - vectors[other])
        assert np.linalg.norm(found.vectors[one] - found.vectors[other]) == pytest.approx(
            before, abs=1e-5
        )


def test_blocks_change_nothing(monkeypatch):
    vectors = drawn(30, 8, 2)
    whole = principal_components(vectors, 5)
    monkeypatch.setattr(weighting, "BLOCK", 7)
    found = principal_components(vectors, 5)
    np.testing.assert_allclose(found.vectors, whole.vectors, atol=1e-6)


def test_equal_vectors_have_no_variance_and_components_of_zeros():
    found = principal_components(np.full((5, 4), 2, np.float32), 2)
    assert not found.vectors.any()
    assert found.explained == 1


def test_weights_are_a_by_a_plus_p():
    assert zipf_probabilities(3) == pytest.approx(np.array([6, 4, 3]) / 13)
    assert sif_weights(np.array([0, 0.001, 0.1]), 0.001) == pytest.approx([1, 0.5, 1 / 101])
    assert (sif_weights(np.array([0, 0.5]), 0) == 1).all()


@given(st.lists(st.lists(st.sampled_from([*WORDS, "unheard"])).map(" ".join), max_size=8))
def test_pieces_are_counted_as_a_plain_loop_counts_them(texts):
    tokenizer = wordpiece()
    wanted = Counter()
    for text in texts:
        wanted.update(tokenizer.encode_batch([text])[0].tolist())
    counts = counted(tokenizer, texts)
    assert counts.tolist() == [wanted[i] for i in range(tokenizer.vocab_size)]
