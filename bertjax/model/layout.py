"""The layout of the model's activations on a mesh, given by the caller, by logical axis names."""

from collections.abc import Callable, Sequence
from typing import Protocol

from jax import Array

Names = tuple[str | None, ...]
"""The logical name of each axis of an array; None: not cut."""
HIDDEN: Names = ("batch", "length", None)
"""The axes of hidden states, [B, L, D]."""


class Layout(Protocol):
    """Lays activations out on a mesh; `bertjax.parallel.rules.MeshLayout` does.

    The model asks its caller for it, so that it depends on no mesh and no table of axes.
    """

    @property
    def platform(self) -> str:
        """The kind of the devices: `tpu`, `gpu`, `cpu`, or `any` where it is left open."""
        ...

    def parts(self, name: str) -> int:
        """Return the number of parts that an axis of this logical name is cut into."""
        ...

    def __call__(self, x: Array, *names: str | None) -> Array:
        """Return `x`, each axis cut as its logical name says (None: not cut)."""
        ...

    def per_device(
        self, function: Callable[..., Array], inputs: Sequence[Names], output: Names
    ) -> Callable[..., Array]:
        """Return `function` run by each device on its part of the arguments.

        For kernels, which the compiler cannot cut. `inputs` has each argument's logical names,
        `output` those of the result.
        """
        ...


class Anywhere:
    """The layout of a caller who leaves everything to the compiler.

    Nothing is cut, and no kernel is used, since the compiler could not cut it either.
    """

    @property
    def platform(self) -> str:
        """`any`: the device is left open."""
        return "any"

    def parts(self, name: str) -> int:
        """Return 1: nothing is cut."""
        return 1

    def __call__(self, x: Array, *names: str | None) -> Array:
        """Return `x` as it is."""
        return x

    def per_device(
        self, function: Callable[..., Array], inputs: Sequence[Names], output: Names
    ) -> Callable[..., Array]:
        """Return `function` as it is."""
        return function


ANYWHERE = Anywhere()
