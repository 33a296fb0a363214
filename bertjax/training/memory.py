"""The memory that a run needs at the least, compared with what its devices have."""

import math
from contextlib import AbstractContextManager

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.parallel import memory
from bertjax.training.objective import Objective
from bertjax.training.step import abstract_state

FEWER = "fewer rows, or train.gradient_accumulation_steps that divides them"


def check_memory(config: Config, mesh: Mesh, objective: Objective | None = None) -> None:
    """Raise `UserError` for a model or a batch that all devices of `mesh` together cannot hold.

    This is a lower bound, so nothing is refused that could run: of the state each parameter and
    moment once, of a part of the batch the output of one layer. Found before the program is
    compiled, which for such shapes takes minutes.
    """
    available = memory.memory_bytes(mesh.devices.flatten().tolist())
    leaves = jax.tree.leaves(abstract_state(config, mesh, objective))
    state = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    memory.check_fits(
        state, available, where="model", found="parameters and moments", expected="a smaller model"
    )
    check_batch_memory(config, mesh, held=state)


def check_batch_memory(config: Config, mesh: Mesh, *, held: int = 0) -> None:
    """Raise `UserError` for a batch that does not fit beside what is `held`, in bytes."""
    # Of the lengths that batches are padded to, the shortest: it may be the only one that occurs.
    rows, length = config.train.batch_size, min(config.row_lengths)
    part = rows // config.train.gradient_accumulation_steps
    # In the model's numbers, two bytes each at the least; and an int32 for each id of the batch.
    outputs = part * length * config.model.hidden_size * 2
    memory.check_fits(
        held + outputs + rows * length * 4,
        memory.memory_bytes(mesh.devices.flatten().tolist()),
        where="train.batch_size",
        found=_batch_shape(config),
        expected=FEWER,
    )


def batch_memory_errors(config: Config) -> AbstractContextManager[None]:
    """Turn the end of memory in the block, which computes batches, into a `UserError`."""
    return memory.memory_errors("train.batch_size", _batch_shape(config), FEWER)


def _batch_shape(config: Config) -> str:
    return f"{config.train.batch_size:,} rows of {min(config.row_lengths):,} ids or more"
