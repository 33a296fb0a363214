"""Rows that predict every next token (arXiv 2410.24159)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.masking.causal import causal_rows, with_causal_rows
from tests.masking.test_selection import config, random_rows, with_numpy


@given(share=st.floats(0, 1), rows=st.integers(1, 64))
def test_causal_rows_are_the_share_of_the_batch_and_spread_over_it(share, rows):
    flags = causal_rows(share, rows)
    assert flags.shape == (rows, 1)
    assert flags.sum() == round(share * rows)
    # Any stretch of rows, such as those of a device, has its part but for one row.
    for begin in range(rows):
        for end in range(begin, rows):
            part = flags[begin:end].sum()
            assert abs(part - flags.mean() * (end - begin)) < 2


def drawn(seed, packed):
    batch = random_rows(seed, 8, 20)
    batch["input_mask"][0] = 1
    if packed:
        rng = np.random.default_rng(seed)
        packs = 1 + np.cumsum(rng.random(batch["input_ids"].shape) < 0.2, axis=1)
        batch["pack_ids"] = (packs * batch["input_mask"]).astype(np.int32)
    masked = with_numpy(batch, config("token", 0.3, 19), seed)
    return batch, masked


@given(
    seed=st.integers(0, 2**31),
    share=st.sampled_from([0.125, 0.5, 0.75, 1.0]),
    packed=st.booleans(),
    shifted=st.booleans(),
)
def test_each_next_token_of_an_input_is_predicted_from_the_one_before_it(
    seed, share, packed, shifted
):
    batch, masked = drawn(seed, packed)
    found = with_causal_rows(batch, masked, share, shifted=shifted)
    flags = causal_rows(share, 8)[:, 0]
    assert np.array_equal(found["causal"][:, 0], flags)
    for row, is_causal in enumerate(flags):
        targets = {}
        for slot, weight in enumerate(np.asarray(found["masked_lm_weights"][row])):
            if weight > 0:
                position = int(found["masked_lm_positions"][row, slot])
                targets[position] = int(found["masked_lm_ids"][row, slot])
        ids, real = batch["input_ids"][row], batch["input_mask"][row]
        if not is_causal:
            assert np.array_equal(found["input_ids"][row], masked["input_ids"][row])
            used = masked["masked_lm_weights"][row] > 0
            assert sorted(targets) == masked["masked_lm_positions"][row][used].tolist()
            continue
        assert np.array_equal(found["input_ids"][row], ids)
        wanted = {}
        for i in range(1, 20):
            same = not packed or batch["pack_ids"][row, i] == batch["pack_ids"][row, i - 1]
            if real[i] and same:
                wanted[i if shifted else i - 1] = ids[i]
        assert targets == wanted


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_each_kind_of_rows_counts_as_its_share_and_their_sum_stays(share):
    batch, masked = drawn(1, packed=False)
    weights = np.asarray(with_causal_rows(batch, masked, share, shifted=False)["masked_lm_weights"])
    flags = causal_rows(share, 8)[:, 0] > 0
    count = (batch["input_mask"][flags][:, 1:] > 0).sum()
    count += masked["masked_lm_weights"][~flags].sum()
    assert weights.sum() == pytest.approx(count, rel=1e-6)
    assert weights[flags].sum() == pytest.approx(share * count, rel=1e-6)


def test_a_kind_of_rows_without_targets_is_no_division_by_0():
    batch, masked = drawn(1, packed=False)
    batch["input_mask"][:] = 0
    masked["masked_lm_weights"][:] = 0
    weights = with_causal_rows(batch, masked, 0.5, shifted=True)["masked_lm_weights"]
    assert not np.asarray(weights).any()
