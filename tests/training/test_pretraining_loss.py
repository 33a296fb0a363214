import jax
import numpy as np
import pytest

import bertjax
from bertjax.training import pretraining_loss as objectives
from tests.factory import SMALL_MODEL, random_batch


def test_sums_of_parts_add_up_to_the_sums_of_the_whole():
    params = bertjax.init(SMALL_MODEL, jax.random.key(0))
    batch = random_batch(np.random.default_rng(1), 6)
    whole = objectives.pretraining_sums(SMALL_MODEL, params, batch)
    parts = [{k: v[i : i + 2] for k, v in batch.items()} for i in (0, 2, 4)]
    added = np.sum(
        [objectives.pretraining_sums(SMALL_MODEL, params, part) for part in parts], axis=0
    )
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
