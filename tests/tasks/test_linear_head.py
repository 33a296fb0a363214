import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.layout import ANYWHERE
from bertjax.tasks import linear_head as heads
from tests.factory import SMALL_MODEL


def test_dropout_is_off_without_a_key_and_keeps_the_mean_with_one():
    config = dataclasses.replace(SMALL_MODEL, hidden_dropout_prob=0.25)
    x = jnp.ones((64, 64))
    assert heads.dropped(config, x, None, ANYWHERE) is x
    assert heads.dropped(SMALL_MODEL, x, jax.random.key(0), ANYWHERE) is x
    result = np.asarray(heads.dropped(config, x, jax.random.key(0), ANYWHERE))
    assert np.unique(result).tolist() == pytest.approx([0, 4 / 3])
    assert (result == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert not np.array_equal(result, heads.dropped(config, x, jax.random.key(1), ANYWHERE))
