"""The gradient of a batch, computed in parts one after another where it has several."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.errors import check
from bertjax.model.functional import Params
from bertjax.model.layout import ANYWHERE, Layout, PartOfBatch
from bertjax.parallel import rules
from bertjax.training.objective import Objective
from bertjax.training.optimization.batch_schedule import NOISE, SIGNAL
from bertjax.training.pretraining import pretraining
from bertjax.types import Batch


def check_batch(config: Config, mesh: Mesh) -> None:
    """Raise `UserError` where the mesh does not divide the batch or its rows."""
    parts, accumulated = rules.batch_parts(mesh), config.train.gradient_accumulation_steps
    check(
        config.train.batch_size % (parts * accumulated) == 0,
        where="train.batch_size",
        found=config.train.batch_size,
        expected=f"a multiple of the devices that share the batch ({parts}) times "
        f"train.gradient_accumulation_steps ({accumulated})",
    )
    row_devices = mesh.shape["sequence"]
    expected = f"a multiple of the devices that share a row, mesh.sequence ({row_devices})"
    name = "finetune.length_buckets" if config.finetune.tasks else "data.max_seq_length"
    # A shard of a row may not be longer than another: each device runs the same program.
    for length in config.row_lengths:
        check(length % row_devices == 0, where=name, found=length, expected=expected)


def gradients(
    config: Config,
    params: Params,
    batch: Batch,
    key: Array | None,
    layout: Layout = ANYWHERE,
    objective: Objective | None = None,
    transform: Callable[[Params], Params] | None = None,
) -> tuple[Params, Any, Array]:
    """Return (gradient, sums, squares) of the objective's loss over the whole batch.

    `sums` are the batch's (`Objective.sums`); `squares`, float32 [], adds up the squared norms of
    the parts' gradients. The batch is divided into `gradient_accumulation_steps` parts for each
    `batch_size` rows that it has. The losses of the parts are divided by the whole batch's counts,
    so their gradients add up to the batch's gradient, however unevenly the masks are spread. The
    loss is computed on `transform(params)`, if `transform` is given.
    """
    objective = objective or pretraining(config)
    totals = objective.counts(batch)

    def part_loss(
        params: Params, part: Batch, key: Array | None, layout: Layout
    ) -> tuple[Array, Any]:
        transformed = params if transform is None else transform(params)
        sums = objective.sums(transformed, part, key=key, layout=layout)
        return objective.loss(sums, totals), sums

    def part_gradient(
        params: Params, part: Batch, key: Array | None, layout: Layout
    ) -> tuple[Params, Any, Array]:
        gradient, sums = jax.grad(part_loss, has_aux=True)(params, part, key, layout)
        # Only the adaptive batch schedule uses the norm; else the compiler leaves it out.
        return gradient, sums, optax.tree.norm(gradient, squared=True)

    parts = config.train.gradient_accumulation_steps * batches_in(config, batch)
    if parts == 1:
        return part_gradient(params, batch, key, layout)
    part_rows = rows_in(batch) // parts

    def add_part(so_far: Any, numbered: tuple[Array, Batch]) -> tuple[Any, None]:
        index, part = numbered
        part_key, part_layout = key, layout
        if config.dropout_follows_rows:
            part_layout = PartOfBatch(layout, index, parts, part_rows)
        elif key is not None:
            # With one key, rows of the same index in different parts would have the same dropout
            # mask.
            part_key = jax.random.fold_in(key, index)
        gradient_sums_square = part_gradient(params, part, part_key, part_layout)
        return jax.tree.map(jnp.add, so_far, gradient_sums_square), None

    # Part i has the rows i, i + parts, i + 2 parts and so on, so each device splits the rows that
    # it has. With contiguous parts the rows would have to move between the devices.
    split = {
        name: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
        for name, x in batch.items()
    }
    first = {name: x[0] for name, x in split.items()}
    # Zeros in the form of the result, of which only the shapes are computed here.
    zero = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(partial(part_gradient, layout=layout), params, first, key),
    )
    total, _ = jax.lax.scan(add_part, zero, (jnp.arange(parts), split))
    return total


def batches_in(config: Config, batch: Batch) -> int:
    """Return the size of a batch in units of `train.batch_size` rows; 1 for a smaller batch."""
    return max(1, rows_in(batch) // config.train.batch_size)


def rows_in(batch: Batch) -> int:
    """Return the number of rows of a batch."""
    any_array = next(iter(batch.values()))  # all arrays have the same number of rows
    return any_array.shape[0]


def gradient_noise(
    config: Config, batches: int, square: Array, squares_of_parts: Array
) -> dict[str, Array]:
    """Return unbiased estimates of tr(S) and |G|^2 (arXiv 1812.06162, appendix A.1).

    tr(S) is the total variance of one row's gradient, and |G|^2 the squared norm of the true
    gradient. Their ratio is the gradient noise scale. `square` is the squared norm of the whole
    batch's gradient, of n parts of b rows each. `squares_of_parts` adds up |g_i|^2, where the
    gradients g_i of the parts add up to the batch's gradient. One step's estimates may be negative.
    """
    parts = config.train.gradient_accumulation_steps * batches
    part_size = config.train.batch_size / config.train.gradient_accumulation_steps
    # The mean squared norm of a part's own gradient, which is about n g_i: sum(|n g_i|^2) / n.
    part_square = parts * squares_of_parts
    # The paper's formulas for batches of b and n b rows:
    # tr(S) = (part_square - square) / (1/b - 1/(n b)),
    # |G|^2 = (n b square - b part_square) / (n b - b).
    noise = part_size * parts / (parts - 1) * (part_square - square)
    signal = (parts * square - part_square) / (parts - 1)
    return {NOISE: noise, SIGNAL: signal}
