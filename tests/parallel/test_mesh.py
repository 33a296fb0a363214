import jax
import pytest

from bertjax.config import MeshConfig
from bertjax.errors import UserError
from bertjax.parallel.mesh import make_mesh


def test_minus_one_takes_the_devices_that_are_left():
    assert dict(make_mesh(MeshConfig(fsdp=2)).shape) == {"data": 4, "fsdp": 2, "tensor": 1}
    assert dict(make_mesh(MeshConfig(data=2, tensor=-1)).shape) == {"data": 2, "fsdp": 1, "tensor": 4}


def test_every_axis_is_automatic():
    assert set(make_mesh(MeshConfig()).axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize("config", [MeshConfig(fsdp=3), MeshConfig(data=3), MeshConfig(data=4, tensor=4)], ids=str)
def test_sizes_that_do_not_fit_the_devices_are_refused_naming_both(config):
    with pytest.raises(UserError, match=r"^mesh: found data -?\d x fsdp \d x tensor \d, expected .*devices \(8\)$"):
        make_mesh(config)
