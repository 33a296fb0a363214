import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.preparation.inputs.instances import Sequences
from bertjax.data.preparation.inputs.packing import alone, pack
from bertjax.data.preparation.inputs.sequence_layout import lay_out_rows
from bertjax.data.records.record_format import Schema
from bertjax.data.tokenizers.tokenizer import open_vocabulary
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.model import functional
from bertjax.training import pretraining_loss as objectives
from tests.factory import SMALL_MODEL


def row_count(lengths, max_length, max_inputs):
    return int(pack(lengths, max_length, max_inputs).row.max(initial=-1)) + 1


def first_fit_decreasing(lengths, max_length, max_inputs):
    """Count the rows of the simple method: longest first, each into the first row with room."""
    rows = []
    for length in sorted(lengths.tolist(), reverse=True):
        for row in rows:
            if len(row) < max_inputs and sum(row) + length <= max_length:
                row.append(length)
                break
        else:
            rows.append([length])
    return len(rows)


@st.composite
def problems(draw):
    """Draw lengths, the length of a row, and the number of inputs that a row may hold."""
    max_length = draw(st.integers(1, 60))
    lengths = draw(
        st.lists(st.integers(1, max_length) | st.integers(1, min(5, max_length)), max_size=80)
    )
    return np.array(lengths, np.int64), max_length, draw(st.integers(1, 8))


@given(problems())
def test_every_input_has_a_place_of_its_own_and_rows_hold_what_they_may(problem):
    lengths, max_length, max_inputs = problem
    placement = pack(*problem)
    assert {len(field) for field in placement} == {len(lengths)}
    rows = row_count(*problem)
    assert np.unique(placement.row).tolist() == list(range(rows))
    for row in range(rows):
        inside = np.flatnonzero(placement.row == row)
        inside = inside[np.argsort(placement.number[inside])]
        assert len(inside) <= max_inputs
        assert placement.number[inside].tolist() == list(range(1, len(inside) + 1))
        ends = np.cumsum(lengths[inside])
        assert placement.offset[inside].tolist() == [0, *ends[:-1]]
        assert ends[-1] <= max_length


@given(problems())
def test_rows_are_hardly_more_than_first_fit_decreasing_needs(problem):
    lengths, max_length, max_inputs = problem
    least = max(-(-int(lengths.sum()) // max_length), -(-len(lengths) // max_inputs))
    assert least <= row_count(*problem) <= first_fit_decreasing(*problem) + 1


@pytest.mark.parametrize("max_inputs", [1, 2, 5])
def test_inputs_of_one_length_fill_rows(max_inputs):
    assert row_count(np.full(103, 10), 40, max_inputs) == -(-103 // min(max_inputs, 4))


def test_a_row_takes_as_many_of_a_length_as_fit():
    assert row_count(np.repeat([25, 5], [3, 9]), 40, 8) == 3
    assert row_count(np.repeat([25, 5], [3, 9]), 40, 3) == 4


def test_short_inputs_leave_hardly_any_padding():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(60) - 0.5**2 / 2, 0.5, 20_000), 5, 512).astype(np.int64)
    placement = pack(lengths, 512, 32)
    rows = int(placement.row.max()) + 1
    assert 1 - lengths.sum() / (rows * 512) < 0.03
    assert rows < len(lengths) / 8


def test_alone_every_input_has_a_row():
    placement = alone(3)
    assert (placement.row.tolist(), placement.offset.tolist(), placement.number.tolist()) == (
        [0, 1, 2],
        [0, 0, 0],
        [1, 1, 1],
    )


def test_the_same_lengths_are_packed_the_same_way():
    lengths = np.random.default_rng(0).integers(1, 65, 500)
    assert all(
        np.array_equal(*both)
        for both in zip(pack(lengths, 64, 6), pack(lengths, 64, 6), strict=True)
    )


# Packed rows train as the same inputs do in rows of their own.

LENGTH, SENTENCES, MASKED = 32, 5, 3  # MASKED: predictions in an input, at most
MODEL = dataclasses.replace(SMALL_MODEL, max_position_embeddings=LENGTH, initializer_range=0.3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("packing") / "vocab.txt"
    entries = [*SPECIAL_TOKENS, *(f"w{i}" for i in range(MODEL.vocab_size - len(SPECIAL_TOKENS)))]
    path.write_text("".join(f"{entry}\n" for entry in entries))
    return open_vocabulary(TokenizerConfig(vocab_file=str(path)))


def masked(batch, placement, lengths, predictions, seed):
    """Return `batch` with the same tokens of each input masked, wherever the input is."""
    rng = np.random.default_rng(seed)
    rows = len(batch["input_ids"])
    ids, labels = batch["input_ids"].copy(), np.zeros((2, rows, predictions), np.int32)
    labels, positions = labels
    weights = np.zeros((rows, predictions), np.float32)
    used = [0] * rows
    for row, offset, length in zip(placement.row, placement.offset, lengths, strict=True):
        count = int(rng.integers(0, MASKED + 1))
        for position in offset + np.sort(
            rng.choice(np.arange(1, length), min(count, length - 1), replace=False)
        ):
            slot = used[row]
            used[row] += 1
            positions[row, slot], labels[row, slot], weights[row, slot] = (
                position,
                ids[row, position],
                1,
            )
            ids[row, position] = 4
    masks = {
        "masked_lm_positions": positions,
        "masked_lm_ids": labels,
        "masked_lm_weights": weights,
    }
    return batch | masks | {"input_ids": ids}


@pytest.fixture(scope="module", params=[0, 1])
def both(request, tokenizer):
    """Lay the same inputs out in rows of their own and packed.

    Returns (placement, batch) of each, and the inputs' lengths.
    """
    rng = np.random.default_rng(request.param)
    tokens = rng.integers(5, MODEL.vocab_size, 400).astype(np.int32)
    a, b = rng.integers(1, 8, 24), rng.integers(0, 8, 24)
    a[0], b[0] = 15, 14  # a full row
    sequences = Sequences(
        rng.integers(0, 380, 24), a, rng.integers(0, 380, 24), b, rng.integers(0, 2, 24)
    )
    lengths = sequences.lengths(tokenizer.layout)
    cases = []
    for placement, sentences, packed in (
        (alone(24), 1, False),
        (pack(lengths, LENGTH, SENTENCES), SENTENCES, True),
    ):
        predictions = MASKED * sentences
        schema = Schema(LENGTH, predictions, sentences=sentences, packed=packed)
        batch = lay_out_rows(sequences, placement, tokens, tokenizer, schema)
        batch = {name: values for name, values in batch.items() if name != "word_starts"}
        cases.append((placement, masked(batch, placement, lengths, predictions, request.param)))
    packed_placement, packed_batch = cases[1]
    assert packed_placement.number.max() >= 3
    assert (packed_batch["input_mask"].min(axis=1) == 0).any()
    return *cases, lengths


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: functional.init(MODEL, key))(jax.random.key(0))


@jax.jit
def outputs(params, batch):
    hidden = functional.encode(MODEL, params, batch).hidden_BxLxD
    positions = batch.get("cls_positions")
    pooled = functional.pool(MODEL, params, hidden, positions)
    return hidden, pooled, functional.nsp_logits(MODEL, params, pooled)


def by_input(result, placement, lengths, packed):
    """Return hidden states, pooled vectors and sentence logits, one input after another."""
    hidden, pooled, scores = map(np.asarray, result)
    tokens = [
        hidden[row, at : at + n]
        for row, at, n in zip(placement.row, placement.offset, lengths, strict=True)
    ]
    slot = (placement.row, placement.number - 1) if packed else placement.row
    return np.concatenate(tokens), pooled[slot], scores[slot]


def test_a_packed_input_has_the_hidden_states_and_sentence_scores_of_one_alone(both, params):
    (placement, batch), (packed_placement, packed_batch), lengths = both
    expected = by_input(outputs(params, batch), placement, lengths, False)
    packed = by_input(outputs(params, packed_batch), packed_placement, lengths, True)
    for x, y in zip(expected, packed, strict=True):
        assert np.allclose(x, y, atol=2e-5)

    # Without the numbers of the inputs each would see its neighbors.
    blind = {name: values for name, values in packed_batch.items() if name != "pack_ids"}
    seen = by_input(outputs(params, blind), packed_placement, lengths, True)
    assert not np.allclose(expected[0], seen[0], atol=1e-2)


@jax.jit
def loss_and_gradient(params, batch):
    def loss(params):
        sums = objectives.pretraining_sums(MODEL, params, batch)
        return objectives.mean_loss(sums, *objectives.counts(batch)), sums

    return jax.value_and_grad(loss, has_aux=True)(params)


def test_packed_inputs_have_the_losses_and_the_gradient_of_those_alone(both, params):
    (_, batch), (packed_placement, packed_batch), lengths = both
    (loss, sums), gradient = jax.device_get(loss_and_gradient(params, batch))
    (packed_loss, packed_sums), packed_gradient = jax.device_get(
        loss_and_gradient(params, packed_batch)
    )
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert sums.nsp_count == len(lengths)
    assert sums.mlm_count > len(lengths) / 2
    assert (sums.rows, packed_sums.rows) == (len(lengths), packed_placement.row.max() + 1)
    assert np.allclose(packed_sums._replace(rows=0), sums._replace(rows=0), rtol=1e-5)
    for (path, x), (_, y) in zip(
        jax.tree_util.tree_leaves_with_path(gradient),
        jax.tree_util.tree_leaves_with_path(packed_gradient),
        strict=True,
    ):
        assert np.isfinite(y).all(), path
        assert np.allclose(x, y, atol=1e-5 * max(1, np.abs(x).max()), rtol=1e-3), (
            path,
            np.abs(x - y).max(),
        )
