"""Memory of a device, divided into its uses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.stages import Compiled

from bertjax.estimate.answer_fields import MEMORY
from bertjax.training.step import TrainState


@dataclass(frozen=True)
class Memory:
    """Bytes on each device while a step runs."""

    parameters: int
    optimizer: int
    batch: int
    activations: int
    """Temporary memory of the step: activations kept for the backward pass, gradients, buffers."""
    code: int
    """The program itself."""
    padding: int
    """Padding in the tiled layouts of parameters, optimizer and batch; also outputs that do not
    reuse an input's memory.
    """
    available: int
    """The memory that a program may use on a chip."""

    @property
    def total(self) -> int:
        """Bytes that the step takes."""
        return sum(getattr(self, part) for part in MEMORY)


def bytes_of(tree: Any) -> int:
    """Return the bytes that arrays of these shapes and shardings take on one device."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total


def memory_of(
    state: TrainState, batch: Mapping[str, Any], program: Compiled, available: int
) -> Memory:
    """Return the memory of a compiled step with this abstract state and batch.

    The numbers are those of the compiler's analysis of the program.
    """
    analysis: Any = program.memory_analysis()
    parameters = bytes_of(state.params)
    optimizer = bytes_of((state.step, state.opt_state))
    batch_bytes = bytes_of(batch)
    # The compiler gives the arguments' bytes with the padding of their layouts.
    padded = analysis.argument_size_in_bytes - parameters - optimizer - batch_bytes
    # Donated arguments are overwritten by outputs; the other outputs need memory of their own.
    new_outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return Memory(
        parameters=parameters,
        optimizer=optimizer,
        batch=batch_bytes,
        activations=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
        padding=padded + new_outputs,
        available=available,
    )
