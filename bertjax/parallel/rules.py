"""Which mesh axis each logical axis lies on: the one table, and what follows from it.

Shardings of parameters, optimizer state, activations and batches come from here and nowhere else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from bertjax.errors import check

MESH_AXES = ("replica", "data", "fsdp", "tensor", "sequence")

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("replica", "data", "fsdp"),
    "length": ("sequence",),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    # whole on every device: small, or cut along another of their axes
    "kv": (),
    "layers": (),
    "norm": (),
}


def sharding(mesh: Mesh, logical: PartitionSpec) -> NamedSharding:
    """The sharding on `mesh` of an array with these logical axis names (None: not cut)."""
    axes = [() if name is None else RULES[name] for name in logical]
    return NamedSharding(mesh, PartitionSpec(*(axis or None for axis in axes)))


def tree_shardings(mesh: Mesh, logical_tree: Any) -> Any:
    """`sharding` for each PartitionSpec of logical names in a tree."""
    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    return jax.tree.map(lambda spec: sharding(mesh, spec), logical_tree, is_leaf=is_spec)


def laid_out(shapes: Any, shardings: Any, dtype: DTypeLike | None = None) -> Any:
    """A tree of `jax.ShapeDtypeStruct` with these shardings; of `dtype` where it is given."""
    describe = lambda s, where: jax.ShapeDtypeStruct(s.shape, dtype or s.dtype, sharding=where)  # noqa: E731
    return jax.tree.map(describe, shapes, shardings)


@dataclass(frozen=True)
class MeshLayout:
    """The layout of activations on `mesh`: a `bertjax.model.layout.Layout`."""

    mesh: Mesh

    @property
    def platform(self) -> str:
        return self.mesh.devices.flat[0].platform

    def parts(self, name: str) -> int:
        return math.prod(self.mesh.shape[axis] for axis in RULES[name])

    def __call__(self, x: Array, *names: str | None) -> Array:
        return jax.lax.with_sharding_constraint(x, sharding(self.mesh, PartitionSpec(*names)))

    def per_device(
        self,
        function: Callable[..., Array],
        inputs: Sequence[tuple[str | None, ...]],
        output: tuple[str | None, ...],
    ) -> Callable[..., Array]:
        specs = [sharding(self.mesh, PartitionSpec(*names)).spec for names in (*inputs, output)]
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=tuple(specs[:-1]),
            out_specs=specs[-1],
            check_vma=False,
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose first axis is the batch."""
    return sharding(mesh, PartitionSpec("batch"))


def batch_parts(mesh: Mesh) -> int:
    """The number of parts that a batch is cut into on `mesh`."""
    return MeshLayout(mesh).parts("batch")


def check_divides(mesh: Mesh, shapes: Any, logical_tree: Any) -> None:
    """Raise `UserError` naming a parameter's axis that the mesh axes it lies on do not divide."""
    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    specs = jax.tree.leaves(logical_tree, is_leaf=is_spec)
    for (path, leaf), spec in zip(jax.tree_util.tree_leaves_with_path(shapes), specs, strict=True):
        for size, name in zip(leaf.shape, spec, strict=True):
            parts = math.prod(mesh.shape[axis] for axis in RULES[name]) if name else 1
            where = f"{jax.tree_util.keystr(path, simple=True, separator='/')}, axis {name!r}"
            check(
                size % parts == 0,
                where=where,
                found=size,
                expected=f"a multiple of mesh {' x '.join(RULES.get(name or '', ()))} ({parts})",
            )
