import jax
import pytest

from bertjax.config import MeshConfig
from bertjax.errors import UserError
from bertjax.parallel.mesh import make_mesh


def sizes(config):
    return {name: size for name, size in make_mesh(config).shape.items() if size > 1}


def test_minus_one_takes_the_devices_that_are_left():
    assert sizes(MeshConfig(fsdp=2)) == {"data": 4, "fsdp": 2}
    assert sizes(MeshConfig(data=2, tensor=-1)) == {"data": 2, "tensor": 4}
    assert sizes(MeshConfig(replica=2, sequence=2)) == {"replica": 2, "data": 2, "sequence": 2}


def test_the_axes_are_named_and_automatic():
    mesh = make_mesh(MeshConfig())
    assert mesh.axis_names == ("replica", "data", "fsdp", "tensor", "sequence")
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
    "config", [MeshConfig(fsdp=3), MeshConfig(data=3), MeshConfig(data=4, tensor=4)], ids=str
)
def test_sizes_that_do_not_fit_the_devices_are_refused_naming_both(config):
    found = r"mesh: found replica 1 x data -?\d x fsdp \d x tensor \d x sequence 1"
    with pytest.raises(UserError, match=rf"^{found}, expected .*devices \(8\)$"):
        make_mesh(config)
