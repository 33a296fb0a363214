"""Interface by which a caller shards the model's activations on a mesh, by logical axis names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array

Names = tuple[str | None, ...]
"""The logical name of each axis of an array; an axis with None is not sharded."""
Outputs = Names | list[Names]
"""The names of the axes of a function's result; a list for a tuple of results."""
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

    @property
    def core_memory(self) -> int:
        """Bytes of a TPU core's own memory (VMEM); 0 if they are not known."""
        ...

    def parts(self, name: str) -> int:
        """Return the number of parts that an axis of this logical name is cut into."""
        ...

    def row_numbers(self, count: int) -> Array:
        """Return the number in the whole batch of each of an array's `count` rows; int32 [count].

        Dropout draws its bits by these numbers.
        """
        ...

    def __call__(self, x: Array, *names: str | None) -> Array:
        """Return `x` with each axis sharded by its logical name; with None it is not sharded."""
        ...

    def per_device(
        self, function: Callable[..., Any], inputs: Sequence[Names], output: Outputs
    ) -> Callable[..., Any]:
        """Return a function that runs `function` on each device with its part of the arguments.

        This is for kernels, which the compiler cannot partition. `inputs` has the logical axis
        names of each argument, `output` those of the result or results.
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

    @property
    def core_memory(self) -> int:
        """0: the device is left open."""
        return 0

    def parts(self, name: str) -> int:
        """Return 1, because nothing is sharded."""
        return 1

    def row_numbers(self, count: int) -> Array:
        """Return 0 to `count` - 1: the array holds the whole batch."""
        return jnp.arange(count, dtype=jnp.int32)

    def __call__(self, x: Array, *names: str | None) -> Array:
        """Return `x` unchanged."""
        return x

    def per_device(
        self, function: Callable[..., Any], inputs: Sequence[Names], output: Outputs
    ) -> Callable[..., Any]:
        """Return `function` unchanged."""
        return function


ANYWHERE = Anywhere()


@dataclass(frozen=True)
class WrappedLayout:
    """A layout that does as another one; subclasses change a part of it."""

    layout: Layout

    @property
    def platform(self) -> str:
        """The platform of the layout."""
        return self.layout.platform

    @property
    def core_memory(self) -> int:
        """Bytes of a TPU core's own memory."""
        return self.layout.core_memory

    def parts(self, name: str) -> int:
        """Return the number of parts that an axis of this logical name is cut into."""
        return self.layout.parts(name)

    def row_numbers(self, count: int) -> Array:
        """Return the numbers in the whole batch of an array's rows, int32 [count]."""
        return self.layout.row_numbers(count)

    def __call__(self, x: Array, *names: str | None) -> Array:
        """Return `x` sharded as by the layout."""
        return self.layout(x, *names)

    def per_device(
        self, function: Callable[..., Any], inputs: Sequence[Names], output: Outputs
    ) -> Callable[..., Any]:
        """Return the layout's function that runs `function` on each device."""
        return self.layout.per_device(function, inputs, output)


@dataclass(frozen=True)
class PartOfBatch(WrappedLayout):
    """The layout of one part of a batch in gradient accumulation.

    The part has the batch's rows `first`, `first + step`, `first + 2 step` and so on. With their
    numbers, dropout has the same bits into however many parts the batch is divided.
    """

    first: Array
    """int32 []; the parts are computed in a scan, so it is not known in advance."""
    step: int
    rows: int
    """Number of rows of the part."""

    def row_numbers(self, count: int) -> Array:
        """Return the rows' numbers in the whole batch, int32 [count].

        `count` is a multiple of the part's rows: a task may have several sequences for each row of
        the batch, such as the endings of a question.
        """
        sequences = count // self.rows
        within = jnp.arange(count, dtype=jnp.int32)
        row = self.first + self.step * (within // sequences)
        return row * sequences + within % sequences
