"""The table that assigns mesh axes to each logical axis, and the shardings that follow from it.

All shardings of parameters, optimizer state, activations and batches are made here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from bertjax.errors import check

Names = tuple[str | None, ...]

MESH_AXES = ("replica", "data", "fsdp", "tensor", "sequence")

RULES: dict[str, tuple[str, ...]] = {
    # fsdp divides the batch too: each device keeps a part of the parameters and works on its own
    # rows (ZeRO, arXiv 1910.02054).
    "batch": ("replica", "data", "fsdp"),
    "length": ("sequence",),
    # Tensor parallelism as in Megatron-LM (arXiv 1909.08053, section 3): heads and the feed-forward
    # width are sharded, so that a sublayer needs only one sum over the devices, after its last
    # product.
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    # Not sharded: these axes are small, or the array is sharded along another axis.
    "kv": (),
    "layers": (),
    "norm": (),
}


def sharding(mesh: Mesh, logical: PartitionSpec) -> NamedSharding:
    """Return the sharding on `mesh` for these logical axis names; an axis with None is not cut."""
    axes: list[tuple[str, ...] | None] = []
    for name in logical:
        mesh_axes = () if name is None else RULES[name]
        axes.append(mesh_axes or None)
    return NamedSharding(mesh, PartitionSpec(*axes))


def tree_shardings(mesh: Mesh, logical_tree: Any) -> Any:
    """Return the tree with each PartitionSpec of logical names replaced by its `sharding`."""
    return jax.tree.map(lambda spec: sharding(mesh, spec), logical_tree, is_leaf=is_spec)


def is_spec(node: Any) -> bool:
    """Return True for a PartitionSpec, which JAX's tree functions would treat as a tuple."""
    return isinstance(node, PartitionSpec)


def with_shardings(shapes: Any, shardings: Any, dtype: DTypeLike | None = None) -> Any:
    """Return a tree of `jax.ShapeDtypeStruct` with these shardings, of `dtype` if it is given."""

    def with_sharding(leaf: Any, leaf_sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, dtype or leaf.dtype, sharding=leaf_sharding)

    return jax.tree.map(with_sharding, shapes, shardings)


# As JAX has them (jax.experimental.pallas.tpu, TpuInfo.vmem_capacity_bytes).
CORE_MEMORY = {
    "TPU v4": 16 << 20,
    "TPU v5 lite": 128 << 20,
    "TPU v5": 64 << 20,
    "TPU v6 lite": 128 << 20,
}


@dataclass(frozen=True)
class MeshLayout:
    """The layout of activations on `mesh`: a `bertjax.model.layout.Layout`."""

    mesh: Mesh

    @property
    def platform(self) -> str:
        """The platform of the mesh's devices: `tpu`, `gpu` or `cpu`."""
        return self.mesh.devices.flat[0].platform

    @property
    def core_memory(self) -> int:
        """Bytes of a TPU core's own memory (VMEM); 0 for other devices."""
        return CORE_MEMORY.get(self.mesh.devices.flat[0].device_kind, 0)

    def parts(self, name: str) -> int:
        """Return the number of parts that an axis of this logical name is cut into."""
        return _parts(self.mesh, name)

    def row_numbers(self, count: int) -> Array:
        """Return 0 to `count` - 1: the array holds the whole batch."""
        return jnp.arange(count, dtype=jnp.int32)

    def __call__(self, x: Array, *names: str | None) -> Array:
        """Return `x` with the sharding of these logical names, one for each of its axes."""
        return jax.lax.with_sharding_constraint(x, sharding(self.mesh, PartitionSpec(*names)))

    def per_device(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Names],
        output: Names | list[Names],
    ) -> Callable[..., Any]:
        """Return `function` run by each device on its part of the arguments.

        `inputs` has each argument's logical names, `output` those of the result or results.
        """

        def spec(names: Names) -> PartitionSpec:
            return sharding(self.mesh, PartitionSpec(*names)).spec

        if isinstance(output, list):
            out_specs: Any = tuple(spec(names) for names in output)
        else:
            out_specs = spec(output)
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=tuple(spec(names) for names in inputs),
            out_specs=out_specs,
            # The check needs the varying axes of each result, which Pallas kernels do not declare.
            check_vma=False,
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array of which every device holds a full copy."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array whose first axis is the batch."""
    return sharding(mesh, PartitionSpec("batch"))


def batch_parts(mesh: Mesh) -> int:
    """Return the number of parts that a batch is cut into on `mesh`."""
    return _parts(mesh, "batch")


def _parts(mesh: Mesh, name: str) -> int:
    return math.prod(mesh.shape[axis] for axis in RULES[name])


def check_divides(mesh: Mesh, shapes: Any, logical_tree: Any) -> None:
    """Raise `UserError` if the mesh does not divide the size of some parameter axis, naming it."""
    specs = jax.tree.leaves(logical_tree, is_leaf=is_spec)
    for (path, leaf), spec in zip(jax.tree_util.tree_leaves_with_path(shapes), specs, strict=True):
        parameter = jax.tree_util.keystr(path, simple=True, separator="/")
        for size, name in zip(leaf.shape, spec, strict=True):
            if name is None:
                continue
            parts = _parts(mesh, name)
            check(
                size % parts == 0,
                where=f"{parameter}, axis {name!r}",
                found=size,
                expected=f"a multiple of mesh {' x '.join(RULES[name])} ({parts})",
            )
