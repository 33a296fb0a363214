"""Where the model's activations lie on a mesh: asked of the caller, by logical axis names."""

from collections.abc import Callable, Sequence
from typing import Protocol

from jax import Array

Names = tuple[str | None, ...]
ROWS: Names = ("batch", "length", None)
"""Of what goes from layer to layer, [B, L, D]."""


class Layout(Protocol):
    """Lays activations out on a mesh. `bertjax.parallel.rules.MeshLayout` is one."""

    @property
    def platform(self) -> str:
        """What the devices are: `tpu`, `gpu`, `cpu`, or `any` where that is left open."""
        ...

    def parts(self, name: str) -> int:
        """Into how many parts an axis of this logical name is cut."""
        ...

    def __call__(self, x: Array, *names: str | None) -> Array:
        """`x`, each axis cut as its logical name says (None: not cut)."""
        ...

    def per_device(
        self, function: Callable[..., Array], inputs: Sequence[Names], output: Names
    ) -> Callable[..., Array]:
        """`function` run by each device on its part of the arguments: for kernels that the compiler
        cannot cut.
        """
        ...


class Anywhere:
    """The layout of a caller who leaves everything to the compiler: nothing is cut, and no kernel
    is used, since the compiler could not cut it either.
    """

    @property
    def platform(self) -> str:
        return "any"

    def parts(self, name: str) -> int:
        return 1

    def __call__(self, x: Array, *names: str | None) -> Array:
        return x

    def per_device(
        self, function: Callable[..., Array], inputs: Sequence[Names], output: Names
    ) -> Callable[..., Array]:
        return function


ANYWHERE = Anywhere()
