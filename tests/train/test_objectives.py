import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bertjax
from bertjax.train import objectives
from tests.factory import SMALL_MODEL, random_batch


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 6), classes=st.integers(2, 9), scale=st.floats(0.1, 100))
def test_cross_entropy_agrees_with_logs_of_probabilities(seed, rows, classes, scale):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(rows, classes)) * scale).astype(np.float32)
    labels = rng.integers(0, classes, rows).astype(np.int32)
    weights = rng.random(rows).astype(np.float32)
    exact = logits.astype(np.float64)
    exact = exact - exact.max(-1, keepdims=True)
    losses = np.log(np.exp(exact).sum(-1)) - exact[np.arange(rows), labels]
    loss, correct, count = objectives.weighted_cross_entropy(logits, labels, weights)
    assert float(loss) == pytest.approx((losses * weights).sum(), rel=1e-4, abs=1e-4)
    assert float(correct) == pytest.approx((weights * (logits.argmax(-1) == labels)).sum(), rel=1e-5)
    assert float(count) == pytest.approx(weights.sum(), rel=1e-5)


def test_an_entry_of_weight_zero_adds_nothing_even_where_its_loss_is_not_finite():
    logits = np.array([[0.0, 0.0], [np.inf, 0.0]], np.float32)
    loss, _, _ = objectives.weighted_cross_entropy(logits, np.array([0, 1]), np.array([1.0, 0.0]))
    assert float(loss) == pytest.approx(np.log(2), rel=1e-6)


def test_sums_of_parts_add_up_to_the_sums_of_the_whole():
    params = bertjax.init(SMALL_MODEL, jax.random.key(0))
    batch = random_batch(np.random.default_rng(1), 6)
    whole = objectives.pretraining_sums(SMALL_MODEL, params, batch)
    parts = [{k: v[i : i + 2] for k, v in batch.items()} for i in (0, 2, 4)]
    added = np.sum([objectives.pretraining_sums(SMALL_MODEL, params, part) for part in parts], axis=0)
    assert np.allclose(np.array(whole), added, rtol=1e-5)


def test_filler_rows_count_nowhere():
    params = bertjax.init(SMALL_MODEL, jax.random.key(0))
    batch = random_batch(np.random.default_rng(2), 3)
    filled = {k: np.concatenate([v, np.zeros((2, *v.shape[1:]), v.dtype)]) for k, v in batch.items()}
    filled["cls_weights"] = np.array([[1], [1], [1], [0], [0]], np.float32)
    a = objectives.pretraining_sums(SMALL_MODEL, params, batch)
    b = objectives.pretraining_sums(SMALL_MODEL, params, filled)
    assert np.allclose(np.array(a), np.array(b), rtol=1e-6)


def test_an_untrained_model_loses_the_log_of_the_number_of_choices():
    params = bertjax.init(SMALL_MODEL, jax.random.key(0))
    _, metrics = bertjax.pretraining_loss(SMALL_MODEL, params, random_batch(np.random.default_rng(3), 64))
    assert float(metrics["mlm_loss"]) == pytest.approx(np.log(64), abs=0.1)
    assert float(metrics["nsp_loss"]) == pytest.approx(np.log(2), abs=0.05)
    assert float(metrics["loss"]) == pytest.approx(float(metrics["mlm_loss"] + metrics["nsp_loss"]), rel=1e-6)
