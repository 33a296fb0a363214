"""Where a device's memory goes."""

import math
from dataclasses import dataclass
from typing import Any

import jax

from bertjax.estimate.answer_fields import MEMORY


@dataclass(frozen=True)
class Memory:
    """Bytes on each device while a step runs."""

    parameters: int
    optimizer: int
    batch: int
    activations: int
    """What the step needs for a while: activations kept for the backward pass, gradients, buffers."""
    code: int
    """The program itself."""
    padding: int
    """What tiled layouts add to parameters, optimizer and batch, and outputs that do not reuse an
    input.
    """
    available: int
    """The chip's memory a device."""

    @property
    def total(self) -> int:
        return sum(getattr(self, part) for part in MEMORY)


def bytes_of(tree: Any) -> int:
    """Bytes on one device of arrays described with their shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def memory_of(state: Any, batch: Any, compiled: Any, available: int) -> Memory:
    """The memory of a compiled step on this abstract state and batch."""
    found = compiled.memory_analysis()
    parameters, optimizer, rows = (
        bytes_of(state.params),
        bytes_of((state.step, state.opt_state)),
        bytes_of(batch),
    )
    kept = found.output_size_in_bytes - found.alias_size_in_bytes
    padding = found.argument_size_in_bytes - parameters - optimizer - rows + kept
    return Memory(
        parameters,
        optimizer,
        rows,
        found.temp_size_in_bytes,
        found.generated_code_size_in_bytes,
        padding,
        available,
    )
