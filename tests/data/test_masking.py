import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data.masking import mask_tokens

MASK, VOCAB = 4, 1000
ORDINARY = np.arange(5, VOCAB, dtype=np.int32)


def masked(ids, seed=0, mlm_probability=0.15, max_predictions=20):
    rng = np.random.default_rng(seed)
    options = {"mask_id": MASK, "random_ids": ORDINARY, "rng": rng}
    return mask_tokens(ids, ids > 4, mlm_probability=mlm_probability, max_predictions=max_predictions, **options)


def rows(seed, count, length, specials=0.2):
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, VOCAB, (count, length))
    return np.where(rng.random((count, length)) < specials, rng.integers(0, 4, (count, length)), ids).astype(np.int32)


@given(seed=st.integers(0, 2**31), length=st.integers(1, 40), most=st.integers(1, 50), share=st.floats(0.01, 1.0))
def test_positions_are_distinct_ascending_and_never_special_and_labels_restore_the_row(seed, length, most, share):
    ids = rows(seed, 20, length)
    found = masked(ids, seed, share, most)
    for i in range(20):
        used = found["masked_lm_weights"][i] > 0
        positions = found["masked_lm_positions"][i][used]
        available = (ids[i] > 4).sum()
        assert used.sum() == min(max(1, round(share * float(available))), most, available)
        assert (np.diff(positions) > 0).all()
        assert (ids[i][positions] > 4).all()
        assert not found["masked_lm_positions"][i][~used].any()
        assert not found["masked_lm_ids"][i][~used].any()
        restored = found["input_ids"][i].copy()
        restored[positions] = found["masked_lm_ids"][i][used]
        assert np.array_equal(restored, ids[i])


@pytest.mark.quick
def test_the_papers_rates_hold_on_a_large_sample():
    ids = rows(0, 20_000, 128, specials=0.0)
    found = masked(ids)
    used = found["masked_lm_weights"] > 0
    assert used.sum() / ids.size == pytest.approx(19 / 128, abs=1e-9)
    shown = np.take_along_axis(found["input_ids"], found["masked_lm_positions"], 1)[used]
    true = found["masked_lm_ids"][used]
    n = len(true)
    tolerance = 4 * np.sqrt(0.25 / n)
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=tolerance)
    assert (shown == true).mean() == pytest.approx(0.1 + 0.1 / len(ORDINARY), abs=tolerance)
    strangers = shown[(shown != MASK) & (shown != true)]
    assert strangers.min() == 5
    counts = np.bincount(strangers, minlength=VOCAB)[5:]
    expected = len(strangers) / len(ORDINARY)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - len(ORDINARY)) < 5 * np.sqrt(2 * len(ORDINARY))


def test_every_place_is_as_likely_as_any_other():
    ids = rows(1, 40_000, 32, specials=0.0)
    found = masked(ids, max_predictions=5)
    counts = np.bincount(found["masked_lm_positions"][found["masked_lm_weights"] > 0], minlength=32)
    expected = counts.sum() / 32
    assert ((counts - expected) ** 2 / expected).sum() < 32 + 5 * np.sqrt(64)


def test_a_row_without_ordinary_tokens_predicts_nothing():
    found = masked(np.full((2, 10), 2, np.int32))
    assert not found["masked_lm_weights"].any()
    assert (found["input_ids"] == 2).all()
