"""Interface by which a caller shards the model's activations on a mesh, by logical axis names."""

from collections.abc import Callable, Sequence
from typing import Protocol

from jax import Array

Names = tuple[str | None, ...]
"""The logical name of each axis of an array; an axis with None is not sharded."""
HIDDEN: Names = ("batch", "length", None)
"""The axes of hidden states, [B, L, D]."""


class Layout(Protocol):
    """Sharding of activations on a mesh; `bertjax.parallel.rules.MeshLayout` implements it.

    The model gets it from its caller, so that the model does not depend on a mesh or on the table
    of axes.
    """

    @property
    def platform(self) -> str:
        """The kind of the devices: `tpu`, `gpu` or `cpu`; `any` if it is not decided."""
        ...

    def parts(self, name: str) -> int:
        """Return the number of parts that an axis of this logical name is cut into."""
        ...

    def __call__(self, x: Array, *names: str | None) -> Array:
        """Return `x` with each axis sharded by its logical name; with None it is not sharded."""
        ...

    def per_device(
        self, function: Callable[..., Array], inputs: Sequence[Names], output: Names
    ) -> Callable[..., Array]:
        """Return a function that runs `function` on each device with its part of the arguments.

        This is for kernels, which the compiler cannot partition. `inputs` has the logical axis
        names of each argument, `output` those of the result.
        """
        ...


class Anywhere:
    """The layout of a caller who leaves all sharding to the compiler.

    No axis is sharded here. No kernel is used either, because the compiler cannot partition one.
    """

    @property
    def platform(self) -> str:
        """`any`: the device is left open."""
        return "any"

    def parts(self, name: str) -> int:
        """Return 1, because nothing is sharded."""
        return 1

    def __call__(self, x: Array, *names: str | None) -> Array:
        """Return `x` unchanged."""
        return x

    def per_device(
        self, function: Callable[..., Array], inputs: Sequence[Names], output: Names
    ) -> Callable[..., Array]:
        """Return `function` unchanged."""
        return function


ANYWHERE = Anywhere()
