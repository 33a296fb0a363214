"""Refitting: the last linear layer of each sublayer is solved anew for the inputs that are left.

By least squares it gives what it gave from all of its inputs, on some data: a solution of equations
and no training. The step is that of arXiv 2204.09656, section 4.3, with all weights of the layer
and not one factor for each head or unit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.compression.prune.masks import inputs_changed, with_last_layers
from bertjax.compression.prune.structure import Kept, head_columns, stack_size
from bertjax.config import ModelConfig
from bertjax.model.functional import Params
from bertjax.model.layers import Linear
from bertjax.model.layout import ANYWHERE
from bertjax.parallel import memory
from bertjax.progress import Progress, silent
from bertjax.training.objective import Objective
from bertjax.types import Batch

_PROBE, _SEEN = "probe", "seen"  # beside `kernel` in the parameters of a linear layer
DAMPING = 1e-4
"""Weight of the old weights beside the data, as a share of the mean square of an input."""


class Grams(NamedTuple):
    """Sums over tokens of the products of a linear layer's inputs, and of 1, with each other."""

    heads: np.ndarray
    """Of the attention's output, float32 [N, H K + 1, H K + 1]."""
    units: np.ndarray
    """Of the feed-forward sublayer's second layer, float32 [N, F + 1, F + 1]."""


@jax.custom_vjp
def _tapped(x: Array, probe: Array, seen: Array) -> Array:
    """Return `x`; the "gradient" of the probe is the sum of its products, whatever the loss is."""
    return x


def _tapped_forward(x: Array, probe: Array, seen: Array) -> tuple[Array, tuple[Array, Array]]:
    return x, (x, seen)


def _tapped_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array, Array]:
    x, seen = kept
    with_one = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1).astype(jnp.float32)
    # Padding is computed, but read by nobody.
    weighted = with_one * seen[:, :, None]
    products = jnp.einsum("blm,bln->mn", weighted, with_one)
    return gradient, products, jnp.zeros_like(seen)


_tapped.defvjp(_tapped_forward, _tapped_backward)


def grams(
    config: ModelConfig,
    objective: Objective,
    params: Params,
    batches: Sequence[Batch],
    progress: Progress = silent,
) -> Grams:
    """Return the sums over the tokens of prepared batches, without padding.

    Raises `UserError` if they do not fit into this machine's memory.
    """
    stack = stack_size(config)
    sizes = config.attention_width + 1, config.intermediate_size + 1
    memory.check_fits(
        # The sums, and those of one batch.
        2 * 4 * stack * sum(size**2 for size in sizes),
        memory.host_bytes(),
        where="--refit",
        found=f"products of {config.intermediate_size:,} units in {stack} layers",
        expected="--refit False",
    )

    def loss(probes: Grams, params: Params, batch: Batch) -> Array:
        with inputs_changed(_PROBE, _probed):
            probed = _with_probes(params, probes, batch["input_mask"], stack)
            sums = objective.sums(probed, batch, key=None, layout=ANYWHERE)
        return objective.loss(sums, objective.counts(batch))

    products = jax.jit(jax.grad(loss))
    zeros = Grams(*(np.zeros((stack, size, size), np.float32) for size in sizes))
    total = zeros
    for done, batch in enumerate(batches):
        progress("inputs of the last layers", done, len(batches))
        total = jax.tree.map(np.add, total, jax.device_get(products(zeros, params, batch)))
    return total


def _with_probes(params: Params, probes: Grams, mask: Any, stack: int) -> Params:
    """Return the parameters with a probe in the last linear layer of each sublayer."""
    # The choices of multiple choice are rows of the encoder.
    rows = jnp.asarray(mask, jnp.float32).reshape(-1, mask.shape[-1])
    seen = jnp.tile(rows[None], (stack, 1, 1))
    return with_last_layers(
        params,
        {_PROBE: probes.heads, _SEEN: seen},
        {_PROBE: probes.units, _SEEN: seen},
    )


def _probed(x: Array, module: Linear) -> Array:
    probe: Array = module.get_variable("params", _PROBE)
    seen: Array = module.get_variable("params", _SEEN)
    return _tapped(x, probe, seen)


def refitted(config: ModelConfig, params: Params, kept: Kept, products: Grams) -> Params:
    """Return `params` of the whole model with last layers that are solved for what is kept.

    Only the weights of kept heads and units are changed, and biases where there are any.
    """
    layers = params["encoder"]["layers"]
    columns = head_columns(config, kept.heads)
    return with_last_layers(
        params,
        _solved(layers["attention"]["output"], products.heads, columns),
        _solved(layers["mlp"]["down"], products.units, kept.units),
    )


def _solved(
    linear: Params, products: np.ndarray, columns: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return a linear layer [N, M, D] solved for those of its inputs that each layer keeps."""
    kernel = np.array(linear["kernel"], np.float32)
    width = kernel.shape[-1]
    solved = {**linear, "kernel": kernel}
    has_bias = "bias" in linear
    if has_bias:
        solved["bias"] = np.array(linear["bias"], np.float32)
    for layer, stays in enumerate(columns):
        if len(stays) == products.shape[1] - 1:
            continue  # all of them
        gram = products[layer].astype(np.float64)
        flat = kernel[layer].reshape(-1, width)
        weights = flat.astype(np.float64)
        bias = solved["bias"][layer].astype(np.float64) if has_bias else np.zeros(width)
        # The input 1 stands for the bias.
        inputs = np.append(stays, len(gram) - 1) if has_bias else stays
        whole = np.concatenate([weights, bias[None]]) if has_bias else weights
        target = gram[inputs, : len(whole)] @ whole
        left = gram[np.ix_(inputs, inputs)]
        damping = DAMPING * np.trace(left[: len(stays), : len(stays)]) / len(stays)
        # Towards the weights as they were: what the data do not tell stays.
        old = whole[inputs]
        penalty = np.full(len(inputs), damping)
        solution = np.linalg.solve(left + np.diag(penalty), target + penalty[:, None] * old)
        flat[stays] = solution[: len(stays)]
        if has_bias:
            solved["bias"][layer] = solution[-1]
    return solved
