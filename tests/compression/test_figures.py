"""Figures of outputs: masked words, and vectors that a program made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.compression import figures
from bertjax.compression.figures import (
    MaskedWordMeasure,
    PairMeasure,
    padded_rows,
    pooled_vectors,
)
from bertjax.compression.rated_pairs import RatedPair
from bertjax.errors import UserError
from tests.factory import random_batch


def test_masked_words_have_the_mean_loss_of_a_loop_in_parts_of_any_size(monkeypatch, largest):
    rng = np.random.default_rng(0)
    batch = random_batch(rng, 6)
    # A last batch is filled up with rows of zeros.
    batch = {name: np.pad(values, [(0, 2), (0, 0)]) for name, values in batch.items()}
    table = rng.standard_normal((64, 64)).astype(np.float32)
    losses = []
    for row, column in zip(*np.nonzero(batch["masked_lm_weights"]), strict=True):
        position = batch["masked_lm_positions"][row, column]
        logits = table[batch["input_ids"][row, position]].astype(np.float64)
        true = batch["masked_lm_ids"][row, column]
        losses.append(np.log(np.sum(np.exp(logits))) - logits[true])
    measure = MaskedWordMeasure(lambda: iter([batch]), 64, "rows")
    for values in (figures.MAX_VALUES, 16 * 64 * 3):
        monkeypatch.setattr(figures, "MAX_VALUES", values)
        figure = measure.figure(lambda inputs: table[inputs["input_ids"]])
        largest("loss of masked words", abs(figure.value - np.mean(losses)), 1e-12)
        assert figure.count == len(losses)
    packed = {**batch, "pack_ids": batch["input_mask"]}
    measure = MaskedWordMeasure(lambda: iter([packed]), 64, "rows")
    with pytest.raises(UserError, match="rows: found packed rows, expected one input a row"):
        measure.figure(lambda inputs: table[inputs["input_ids"]])
    empty = {**batch, "masked_lm_weights": np.zeros_like(batch["masked_lm_weights"])}
    measure = MaskedWordMeasure(lambda: iter([empty]), 64, "rows")
    with pytest.raises(UserError, match="rows: found no masked word, expected one or more"):
        measure.figure(lambda inputs: table[inputs["input_ids"]])


def pairs_measure(scores):
    pairs = tuple(RatedPair(score, f"{i}", "x") for i, score in enumerate(scores))
    texts = {"x": len(scores)} | {f"{i}": i for i in range(len(scores))}
    return PairMeasure(pairs, (), texts, 0, "pairs")


def test_vectors_in_the_order_of_the_scores_correlate_fully():
    angles = np.array([0.1, 0.5, 0.2, 1.0, 0.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(
        [[3], [1], [2], [5], [1]]
    )
    measure = pairs_measure([4, 2, 3, 1])
    assert measure.figure_of_vectors(vectors).value == pytest.approx(1.0)
    # Vectors that tell nothing apart, or are no numbers, are worth nothing.
    assert measure.figure_of_vectors(np.ones((5, 2))).value == 0.0
    assert measure.figure_of_vectors(np.full((5, 2), np.nan)).value == 0.0
    assert np.isfinite(measure.figure_of_vectors(np.zeros((5, 2))).value)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_padding_does_not_change_a_sentence_vector(lengths):
    rng = np.random.default_rng(sum(lengths))
    rows = [rng.integers(1, 9, length) for length in lengths]
    inputs = padded_rows(rows, 0)
    hidden = rng.standard_normal((*inputs["input_ids"].shape, 4)).astype(np.float32)
    mean = pooled_vectors(hidden, inputs["input_mask"], "mean")
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(inputs["input_ids"][number, : len(row)], row)
        expected = hidden[number, : len(row)].mean(axis=0)
        np.testing.assert_allclose(mean[number], expected, rtol=1e-5, atol=1e-6)
    first = pooled_vectors(hidden, inputs["input_mask"], "cls")
    np.testing.assert_array_equal(first, hidden[:, 0])
