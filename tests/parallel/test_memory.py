"""What is certain not to fit into the memory is refused; the end of memory is one line."""

import jax
import numpy as np
import pytest

from bertjax.config import MeshConfig
from bertjax.errors import UserError
from bertjax.parallel import memory
from bertjax.parallel.mesh import make_mesh
from bertjax.training.step import abstract_state
from tests.factory import small_config


def test_devices_of_one_host_share_its_memory():
    whole = memory.memory_bytes(jax.devices())
    assert whole == memory.memory_bytes(jax.devices()[:1]) == memory.host_bytes()
    assert whole > 1 << 28


def test_what_does_not_fit_is_refused_with_both_sizes():
    memory.check_fits(5, 5, where="x", found="y", expected="less")
    with pytest.raises(UserError) as refused:
        memory.check_fits(3 << 40, 1 << 30, where="x", found="y", expected="less")
    expected = "x: found y, which takes 3,072.0 GiB or more, expected less: there are 1.0 GiB"
    assert str(refused.value) == expected


def test_the_end_of_memory_names_the_field():
    end = memory.memory_errors("rows", 9, "1")
    with pytest.raises(UserError, match=r"rows: found 9, too much for .*\), expected 1"), end:
        np.zeros(1 << 50)
    end = memory.memory_errors("rows", 9, "1")
    with pytest.raises(UserError, match=r"the memory \(RESOURCE_EXHAUSTED: x y\)"), end:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x\ny")
    end = memory.memory_errors("rows", 9, "1")
    with pytest.raises(jax.errors.JaxRuntimeError), end:
        raise jax.errors.JaxRuntimeError("INTERNAL: x")


@pytest.mark.parametrize("changes,message", [
    ({"model": {"hidden_size": 1 << 20}}, "model: found parameters and moments, which takes"),
    ({"train": {"batch_size": 1 << 30}}, "train.batch_size: found 1,073,741,824 rows of 16 ids"),
])  # fmt: skip
def test_what_no_device_can_hold_is_refused(changes, message):
    mesh = make_mesh(MeshConfig())
    config = small_config()
    memory.check_memory(config, mesh, abstract_state(config, mesh))
    config = small_config(**changes)
    with pytest.raises(UserError) as refused:
        memory.check_memory(config, mesh, abstract_state(config, mesh))
    assert str(refused.value).startswith(message)
