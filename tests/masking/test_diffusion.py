"""Masks of masked diffusion (arXiv 2406.07524, 2502.09992)."""

from functools import partial

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertjax.masking.diffusion import LOWEST_RATE, diffusion_batch, mask_rates
from tests.masking.test_selection import MASK, VOCABULARY, maskable_of, random_rows

masked_by = jax.jit(partial(diffusion_batch, vocabulary=VOCABULARY))


@given(seed=st.integers(0, 2**31), specials=st.sampled_from([0.0, 0.2, 1.0]))
def test_ordinary_tokens_become_mask_with_the_weight_of_their_rows_rate(seed, specials):
    batch = random_rows(seed, 12, 40, specials=specials)
    masked = jax.device_get(masked_by(batch, key=jax.random.key(seed)))
    assert "word_starts" not in masked
    maskable, weights = maskable_of(batch), masked["masked_lm_weights"]
    chosen = weights > 0
    assert not (chosen & ~maskable).any()
    assert np.array_equal(masked["input_ids"], np.where(chosen, MASK, batch["input_ids"]))
    columns = np.broadcast_to(np.arange(40), chosen.shape)
    assert np.array_equal(masked["masked_lm_positions"], np.where(chosen, columns, 0))
    assert np.array_equal(masked["masked_lm_ids"], np.where(chosen, batch["input_ids"], 0))
    assert np.array_equal(masked["masked_lm_counts"][:, 0], maskable.sum(axis=1))
    # One weight a row: 1 / t with t above the lowest rate and up to 1.
    rates = 1 / np.where(chosen, weights, np.nan)
    for row in rates[chosen.any(axis=1)]:
        row_rates = row[~np.isnan(row)]
        assert (row_rates == row_rates[0]).all()
        assert LOWEST_RATE * 0.99 < row_rates[0] <= 1.0 + 1e-6
    assert {name: values.dtype for name, values in masked.items() if "masked" in name} == {
        "masked_lm_positions": np.int32,
        "masked_lm_ids": np.int32,
        "masked_lm_weights": np.float32,
        "masked_lm_counts": np.float32,
    }


def test_rates_are_uniform():
    rates = np.asarray(mask_rates(jax.random.key(0), 20_000))
    assert rates.shape == (20_000, 1)
    assert rates.min() > LOWEST_RATE * 0.99
    assert rates.max() <= 1
    # The deviation of a mean of so many is 0.002, and that of a count 14.
    assert abs(rates.mean() - (1 + LOWEST_RATE) / 2) < 0.01
    assert abs(np.histogram(rates, 10, (0, 1))[0] - 2000).max() < 250


def test_weights_add_up_to_the_number_of_tokens_in_the_mean():
    """So a loss of 1 for each token is 1 in the mean: the weighted sum has no bias."""
    batch = random_rows(0, 20_000, 10, specials=0.0)
    masked = masked_by(batch, key=jax.random.key(1))
    total = np.asarray(masked["masked_lm_weights"]).sum(dtype=np.float64)
    # The variance of a row's sum over its 10 tokens is E[(1 - t) / t] / 10 = 0.59.
    deviation = np.sqrt(0.59 / 20_000)
    assert abs(total / 200_000 - 1) < 4 * deviation
