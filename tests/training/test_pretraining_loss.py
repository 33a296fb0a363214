import dataclasses

import jax
import numpy as np
import pytest

import bertjax
from bertjax.training import pretraining_loss as objectives
from tests.factory import SMALL_MODEL, random_batch

WITH_Z_LOSS = dataclasses.replace(SMALL_MODEL, z_loss=0.1)


@pytest.mark.parametrize("config", [SMALL_MODEL, WITH_Z_LOSS])
def test_sums_of_parts_add_up_to_the_sums_of_the_whole(config):
    params = bertjax.init(config, jax.random.key(0))
    batch = random_batch(np.random.default_rng(1), 6)
    whole = objectives.pretraining_sums(config, params, batch)
    parts = [{k: v[i : i + 2] for k, v in batch.items()} for i in (0, 2, 4)]
    added = np.sum([objectives.pretraining_sums(config, params, part) for part in parts], axis=0)
    assert np.allclose(np.array(whole), added, rtol=1e-5)


def test_filler_rows_count_nowhere():
    params = bertjax.init(SMALL_MODEL, jax.random.key(0))
    batch = random_batch(np.random.default_rng(2), 3)
    filled = {
        k: np.concatenate([v, np.zeros((2, *v.shape[1:]), v.dtype)]) for k, v in batch.items()
    }
    filled["cls_weights"] = np.array([[1], [1], [1], [0], [0]], np.float32)
    a = objectives.pretraining_sums(SMALL_MODEL, params, batch)
    b = objectives.pretraining_sums(SMALL_MODEL, params, filled)
    assert np.allclose(np.array(a), np.array(b), rtol=1e-6)


def test_an_untrained_model_loses_the_log_of_the_number_of_choices():
    params = bertjax.init(SMALL_MODEL, jax.random.key(0))
    _, metrics = bertjax.pretraining_loss(
        SMALL_MODEL, params, random_batch(np.random.default_rng(3), 64)
    )
    assert float(metrics["mlm_loss"]) == pytest.approx(np.log(64), abs=0.1)
    assert float(metrics["nsp_loss"]) == pytest.approx(np.log(2), abs=0.05)
    assert float(metrics["loss"]) == pytest.approx(
        float(metrics["mlm_loss"] + metrics["nsp_loss"]), rel=1e-6
    )


def test_z_loss_is_in_the_training_loss_and_not_in_the_reported_loss_of_masked_tokens():
    params = bertjax.init(SMALL_MODEL, jax.random.key(0))
    batch = random_batch(np.random.default_rng(4), 6)
    _, without = bertjax.pretraining_loss(SMALL_MODEL, params, batch)
    loss, metrics = bertjax.pretraining_loss(WITH_Z_LOSS, params, batch)
    hidden = bertjax.encode(SMALL_MODEL, params, batch).hidden_BxLxD
    logits = bertjax.mlm_logits(SMALL_MODEL, params, hidden, batch["masked_lm_positions"])
    squares = jax.scipy.special.logsumexp(logits, axis=-1) ** 2
    weights = batch["masked_lm_weights"]
    added = 0.1 * float((squares * weights).sum() / weights.sum())
    assert float(loss) == pytest.approx(float(without["loss"]) + added, rel=1e-6)
    assert float(metrics["loss"]) == float(loss)
    for name in ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"):
        assert float(metrics[name]) == float(without[name])
