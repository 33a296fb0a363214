"""Rotary positions (arXiv 2104.09864): queries and keys are rotated by angles that grow with them.

The score of a query and a key then depends on their distance, and not on where they are.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig


class Rotation(NamedTuple):
    """Cosines and sines of the angles, float32 [B or 1, L, K / 2]."""

    cosines: Array
    sines: Array
    packed: Array | None = None
    """Both as the TPU kernel takes them (`kernels.tpu_long_attention.packed_rotation`), if it does.

    Made once for all layers.
    """


def rotation(config: ModelConfig, positions_BxL: Array, base: float) -> Rotation:
    """Return the rotation at the positions: pair i turns by base^(-2 i / K) per position."""
    per_position = jnp.asarray(frequencies(config, base))
    angles = positions_BxL[:, :, None].astype(jnp.float32) * per_position[None, None, :]
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotations(config: ModelConfig, positions_BxL: Array) -> tuple[Rotation, Rotation] | None:
    """Return the rotations of global and of local layers; None without rotary positions."""
    if config.positions != "rotary":
        return None
    local_base = config.rotary_base_local or config.rotary_base
    in_global = rotation(config, positions_BxL, config.rotary_base)
    return in_global, rotation(config, positions_BxL, local_base)


def frequencies(config: ModelConfig, base: float) -> np.ndarray:
    """Return what the angle of each pair grows by from position to position, float32 [K / 2].

    Rounded to float32 at each of the steps at which the implementations of the models round. At
    position 8,192 one bit more or less moves an angle by 5e-4, and trained weights know theirs.
    """
    width = np.float32(config.head_width)
    exponents = np.arange(0, config.head_width, 2, dtype=np.float32) / width
    # The power itself in float64: in float32 its last bit would depend on the processor.
    powers = (base ** exponents.astype(np.float64)).astype(np.float32)
    return np.float32(1) / powers / np.float32(config.rotary_scaling)


def rotate(config: ModelConfig, x_BxLxHxK: Array, by: Rotation) -> Array:
    """Return queries or keys rotated; computed in float32, in the dtype of `x`."""
    x = x_BxLxHxK.astype(jnp.float32)
    cosines, sines = by.cosines[:, :, None, :], by.sines[:, :, None, :]
    if config.rotary_pairs == "half":
        first, second = jnp.split(x, 2, axis=-1)
    else:
        first, second = x[..., 0::2], x[..., 1::2]
    turned = first * cosines - second * sines, second * cosines + first * sines
    if config.rotary_pairs == "half":
        result = jnp.concatenate(turned, axis=-1)
    else:
        result = jnp.stack(turned, axis=-1).reshape(x.shape)
    return result.astype(x_BxLxHxK.dtype)
