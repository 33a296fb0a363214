import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.masking import adaptive
from bertjax.masking.adaptive import LEAST, WEIGHTS, PieceScores, after_update, counted, new_scores
from bertjax.masking.dynamic import JAX, mask_batch
from bertjax.masking.selection import Vocabulary, mask_tokens
from bertjax.masking.static import NUMPY

VOCABULARY = Vocabulary(mask_id=4, special_ids=(0, 1, 2, 3, 4), size=64)


def test_the_update_is_that_of_the_paper_on_numbers_worked_by_hand():
    scores = new_scores(4)
    # Piece 1: 3 of 4 right, piece 2: none of 1, piece 3: all of 99.
    right, seen = jnp.array([0, 3, 0, 99]), jnp.array([0, 4, 1, 99])
    waiting = after_update(scores, right, seen, is_due=False, memory=0.2)
    assert waiting.weights.tolist() == [1, 1, 1, 1]
    assert waiting.seen.tolist() == [0, 4, 1, 99]
    due = after_update(scores, right, seen, is_due=True, memory=0.2)
    # 0.2 w + 0.8 (1 - (right + 0.5) / (seen + 1))
    accuracy = np.array([0.5, 3.5 / 5, 0.5 / 2, 99.5 / 100])
    np.testing.assert_allclose(due.weights, 0.2 + 0.8 * (1 - accuracy), rtol=1e-6)
    assert due.right.tolist() == due.seen.tolist() == [0, 0, 0, 0]
    # Of a piece that is always right some weight is left.
    for _ in range(9):
        due = after_update(due, right, seen, is_due=True, memory=0.2)
    assert due.weights[3] == np.float32(LEAST)


# Of one length, because each is compiled anew.
@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=9, max_size=9))
@settings(max_examples=20)
def test_pieces_are_counted_where_they_are_used(entries):
    labels = np.array([[piece for piece, _ in entries]], np.int32)
    used = np.array([[is_used for _, is_used in entries]], bool)
    expected = [sum(p == piece and u for p, u in entries) for piece in range(8)]
    assert counted(labels, used, 8).tolist() == expected


def chosen(weights, probability, seed, rows=20_000, library=NUMPY):
    """How often each column of equal rows is chosen, and the numbers that rows have chosen."""
    ids = np.tile(np.arange(5, 5 + len(weights), dtype=np.int32), (rows, 1))
    rng = np.random.default_rng(seed)
    made = mask_tokens(
        library, ids, np.ones_like(ids), np.ones(ids.shape, bool), vocabulary=VOCABULARY,
        masking="token", mlm_probability=probability, max_predictions=len(weights),
        shares=(1.0, 0.0, 0.0), uniform=lambda shape: rng.random(shape, np.float32),
        weights=np.tile(np.array(weights, np.int32), (rows, 1)),
    )  # fmt: skip
    is_chosen = np.asarray(made["input_ids"]) == VOCABULARY.mask_id
    return is_chosen.mean(0), is_chosen.sum(1), made


def test_tokens_are_chosen_in_proportion_to_their_weights():
    weights = np.array([1, 2, 3, 4, 10, 5, 5, 10, 20, 40]) * 1000
    shares, counts, _ = chosen(weights, 0.2, 0)
    expected = 2 * weights / weights.sum()
    # Five standard deviations of 20,000 rows.
    assert np.all(np.abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / 20_000))
    assert set(counts) == {2}


def test_a_token_with_more_weight_than_all_others_is_always_chosen():
    shares, counts, _ = chosen([1000, 1, 1, 1], 0.5, 1, rows=500)
    assert shares[0] == 1
    assert set(counts) <= {1, 2}


def test_numpy_and_jax_choose_the_same():
    made = [chosen([5, 1, 7, 3, 2, 9], 0.5, 3, rows=50, library=each)[2] for each in (JAX, NUMPY)]
    for name, values in made[0].items():
        assert np.array_equal(values, made[1][name]), name


DATA = DataConfig(
    max_seq_length=16, masking="token", dynamic_masking=True,
    max_predictions_per_seq=15, mlm_probability=0.5,
)  # fmt: skip


@jax.jit
def masked_by(batch, weights, rate, seed):
    weighted = adaptive.with_weights(batch, PieceScores(weights, None, None))
    return mask_batch(weighted, DATA, VOCABULARY, jax.random.key(seed), rate)


@given(st.integers(0, 2**31), st.floats(0.0625, 1, width=32))
@settings(max_examples=30)
def test_a_masked_batch_has_no_more_than_its_budget_and_no_special_token(seed, rate):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 64, (4, 16)).astype(np.int32)
    batch = {"input_ids": ids, "input_mask": np.ones_like(ids)}
    weights = np.float32(rng.uniform(LEAST, 1, 64))
    masked = masked_by(batch, weights, np.float32(rate), np.uint32(seed))
    assert WEIGHTS not in masked
    used = np.asarray(masked["masked_lm_weights"]) > 0
    ordinary = (ids > 4).sum(1)
    budget = np.minimum(np.clip(np.rint(np.float32(rate) * ordinary), 1, 15), ordinary)
    assert np.all(used.sum(1) <= budget)
    assert np.all(used.sum(1) >= np.minimum(ordinary, 1))
    assert np.all(np.asarray(masked["masked_lm_ids"])[used] > 4)


@pytest.mark.parametrize("length", [8, 128, 8192])
def test_the_weights_of_the_longest_row_fit_into_int32(length):
    ids = jnp.full((1, length), 7)
    whole = adaptive.with_weights({"input_ids": ids}, new_scores(64))[WEIGHTS]
    assert 0 < int(np.asarray(whole, np.int64).sum()) < 2**31
