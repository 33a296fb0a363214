"""Attention kernels, run by Pallas's interpreter, against plain attention."""

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.config import ModelConfig
from bertjax.model.attention.attention import Segments, fused, scored
from bertjax.model.layout import ANYWHERE


def model(rate=0.0):
    return ModelConfig(kernels="pallas", dropout_bits="hash", attention_probs_dropout_prob=rate)


def drawn(seed, batch, length, heads, width, dtype=jnp.float32):
    """Random [q, k, v, gradient of the output], and segments.

    The rows are padded or packed, and the last one is padding only.
    """
    rng = np.random.default_rng(seed)
    arrays = [jnp.asarray(x, dtype) for x in rng.normal(size=(4, batch, length, heads, width))]
    packs = np.sort(rng.integers(0, 4, (batch, length)), axis=1)[:, ::-1]
    queries = np.where(rng.random((batch, 1)) < 0.5, 1, packs)
    keys = np.where(packs > 0, np.where(queries[:, :1] == 1, np.minimum(queries, 1), packs), -1)
    keys[-1] = -1
    return arrays, Segments(jnp.asarray(queries, jnp.int32), jnp.asarray(keys, jnp.int32))


def output_and_gradients(function, arrays):
    *inputs, gradient = arrays
    output, back = jax.vjp(function, *inputs)
    return output, *back(gradient)


def differences(platform, config, arrays, segments, key, layout=ANYWHERE, window=0):
    """The largest difference of output and gradients from plain attention's.

    Each is relative to its largest entry.
    """

    def fast(q, k, v):
        return fused(
            config,
            q,
            k,
            v,
            segments,
            key=key,
            layout=layout,
            platform=platform,
            window=window,
            interpret=True,
        )

    def plain(q, k, v):
        return scored(config, q, k, v, segments, window=window, key=key)

    actual = jax.jit(lambda arrays: output_and_gradients(fast, arrays))(arrays)
    exact = [x.astype(jnp.float32) for x in arrays]
    expected = jax.jit(lambda arrays: output_and_gradients(plain, arrays))(exact)
    relative = []
    for a, b in zip(actual, expected, strict=True):
        relative.append(float(jnp.abs(a.astype(jnp.float32) - b).max() / jnp.abs(b).max()))
    return max(relative)


def rolled(x, shift, axis, *, stride=0, stride_axis=0):
    """What `pltpu.roll` computes."""
    place = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
    row = jax.lax.broadcasted_iota(jnp.int32, x.shape, stride_axis)
    return jnp.take_along_axis(x, (place - shift - stride * row) % x.shape[axis], axis)
