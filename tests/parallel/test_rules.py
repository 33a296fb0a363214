import jax
import pytest
from jax.sharding import PartitionSpec

from bertjax.config import MeshConfig
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from tests.factory import SMALL_MODEL


def test_every_logical_axis_of_the_model_is_in_the_table():
    specs = jax.tree.leaves(
        functional.logical_axes(SMALL_MODEL), is_leaf=lambda x: isinstance(x, PartitionSpec)
    )
    assert {name for spec in specs for name in spec if name} <= set(rules.RULES)


def test_a_kernel_is_cut_along_both_its_axes():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert rules.sharding(mesh, PartitionSpec("layers", "embed", "mlp")).spec == PartitionSpec(
        None, "fsdp", "tensor"
    )
    assert rules.batch_sharding(mesh).spec == PartitionSpec(("replica", "data", "fsdp"))
    assert rules.batch_parts(mesh) == 4


def test_a_mesh_that_does_not_divide_the_model_is_refused_naming_the_parameter():
    mesh = make_mesh(MeshConfig(data=1, tensor=8))
    shapes = jax.eval_shape(lambda: functional.init(SMALL_MODEL, jax.random.key(0)))
    with pytest.raises(
        UserError,
        match=r"attention/key/bias, axis 'heads': found 2, expected a multiple of mesh tensor",
    ):
        rules.check_divides(mesh, shapes, functional.logical_axes(SMALL_MODEL))
