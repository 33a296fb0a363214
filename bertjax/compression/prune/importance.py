"""Importance of heads and feed-forward units: how a loss would change without them.

The gradient of an example's loss with respect to a mask, where the mask is 1, is the gradient with
respect to what the head or unit gives, times this.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.compression.prune.masks import Masks, masked, ones, with_masks
from bertjax.compression.prune.structure import stack_size
from bertjax.config import ModelConfig
from bertjax.model.functional import Params
from bertjax.model.layout import ANYWHERE
from bertjax.parallel import memory
from bertjax.progress import Progress, silent
from bertjax.training.objective import Objective
from bertjax.types import Batch

Method = Literal["gradient", "fisher"]
"""Importance of a head or unit, and which of them are pruned together.

gradient: mean over the examples of the gradient's size (arXiv 1905.10650, equation 2). fisher: mean
of its square, the diagonal of the Fisher information (arXiv 2204.09656, section 4).
"""


class MaskGradients(NamedTuple):
    """Gradients of the loss of each of E examples with respect to the masks."""

    heads: np.ndarray
    """Float32 [E, N, G]."""
    units: np.ndarray
    """Float32 [E, N, F]."""


def mask_gradients(
    config: ModelConfig,
    objective: Objective,
    params: Params,
    batches: Sequence[Batch],
    progress: Progress = silent,
) -> MaskGradients:
    """Return the gradients for all examples of prepared batches, without dropout.

    The gradient of an example that only fills up a batch is 0. Raises `UserError` if the gradients
    do not fit into this machine's memory.
    """

    def loss(masks: Masks, params: Params, batch: Batch) -> Array:
        with masked():
            sums = objective.sums(with_masks(params, masks), batch, key=None, layout=ANYWHERE)
        # Sums and no means: so an example's gradient does not depend on the rest of its batch.
        return objective.loss(sums, jax.tree.map(jnp.ones_like, objective.counts(batch)))

    gradient = jax.jit(jax.grad(loss))
    heads: list[np.ndarray] = []
    units: list[np.ndarray] = []
    for done, batch in enumerate(batches):
        progress("importance", done, len(batches))
        examples = len(batch["input_ids"])
        _check_memory(config, examples * (len(heads) + 1))
        found = jax.device_get(gradient(ones(config, examples), params, batch))
        heads.append(np.swapaxes(found.heads, 0, 1))
        units.append(np.swapaxes(found.units, 0, 1))
    return MaskGradients(np.concatenate(heads), np.concatenate(units))


def importance(gradients: np.ndarray, method: Method) -> np.ndarray:
    """Return the importance of each head or unit, float64 [N, M], from [E, N, M] gradients."""
    if method == "gradient":
        return np.asarray(np.mean(np.abs(gradients), axis=0, dtype=np.float64))
    return np.asarray(np.mean(np.square(gradients), axis=0, dtype=np.float64))


def _check_memory(config: ModelConfig, examples: int) -> None:
    numbers = config.key_value_heads + config.intermediate_size
    memory.check_fits(
        # Twice: the batches are joined to one array.
        2 * 4 * examples * stack_size(config) * numbers,
        memory.host_bytes(),
        where="batches",
        found=f"gradients of {examples:,} examples",
        expected="fewer",
    )
