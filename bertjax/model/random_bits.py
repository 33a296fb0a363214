"""Random bits for dropout.

The hash is a few integer operations an element, in any fusion or kernel. Each row of an array has a
seed of its own; within it, element i's bits are a mix of i with the seed. So the bits are a
function of (key, place in the whole array): the same on any mesh, in the forward and the backward
pass, in XLA and in a kernel. The mixing is the two-round multiply-xorshift whose constants C.
Wellons found by search (nullprogram.com/blog/2018/07/31, "lowbias32"), a second word of the seed
put between the rounds. A generator for masks, not for sampling.
"""

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.model.layout import Layout, Names

# lowbias32's multipliers, as signed 32-bit integers: what TPU kernels compute with.
FIRST, SECOND = 0x7FEB352D, 0x846CA68B - 2**32


def _shift(x: Array, bits: int) -> Array:
    return jax.lax.shift_right_logical(x, jnp.int32(bits))


def mix(counter: Array, low: Array, high: Array) -> Array:
    """32 bits, int32, for each int32 `counter` under the seed words `low` and `high`; the three
    broadcast.
    """
    x = counter ^ low
    x = (x ^ _shift(x, 16)) * jnp.int32(FIRST) + high
    x = (x ^ _shift(x, 15)) * jnp.int32(SECOND)
    return x ^ _shift(x, 16)


def words(key: Array | None) -> Array:
    """The two int32 words that a `jax.random` key gives for a whole array; zeros without one."""
    if key is None:
        return jnp.zeros(2, jnp.int32)
    return jax.lax.bitcast_convert_type(jax.random.bits(key, (2,), jnp.uint32), jnp.int32)


def kept(low: Array, high: Array, row: Array, element: Array, rate: float) -> Array:
    """Which elements of which rows stay when each is dropped with probability `rate`, exact to
    2**-32.

    `low` and `high` are the array's words, `row` and `element` int32 numbers; all four broadcast.
    """
    bits = mix(element, mix(row, low, high), mix(row, high, low))
    return bits >= min(round(rate * 2**32), 2**32 - 1) - 2**31


def keep(key: Array, shape: tuple[int, ...], row_axes: int, rate: float) -> Array:
    """`kept` for a whole array of `shape`, whose rows are counted by its first `row_axes` axes."""
    ones = (1,) * len(shape)
    low, high = (word.reshape(ones) for word in words(key))
    row = _count((*shape[:row_axes], *ones[row_axes:]))
    element = _count((*ones[:row_axes], *shape[row_axes:]))
    return kept(low, high, row, element, rate)


def kept_scores(
    seed: Array, row: Array, head: Array, query: Array, key: Array, length: int, rate: float
) -> Array | None:
    """`keep` of probabilities [B, H, L, L], L `length`, for the elements of these numbers; None
    without a `rate`.

    As kernels have it: `row` and `head` are counted from those of their device, and `seed` [5]
    int32 is the array's words, the numbers of the device's first row and head, and the number of
    heads in all.
    """
    if not rate:
        return None
    number = (seed[2] + row) * seed[4] + seed[3] + head
    return kept(seed[0], seed[1], number, query * length + key, rate)


def drop(x: Array, keep: Array | None, scale: float) -> Array:
    """`x` times `scale` where `keep` says so, worked in float32, and 0 elsewhere; `x` itself
    without `keep`.
    """
    return x if keep is None else jnp.where(keep, x.astype(jnp.float32) * scale, 0).astype(x.dtype)


def threefry(key: Array, shape: tuple[int, ...], layout: Layout, names: Names) -> Array:
    """16 bits an element by JAX's generator, the same on any mesh."""
    return jax.random.bits(key, shape, jnp.uint16)


def rbg(key: Array, shape: tuple[int, ...], layout: Layout, names: Names) -> Array:
    """16 bits an element by the device's own generator, each device drawing its part from a seed of
    its own.

    Left to the compiler, every device would draw the bits of the whole array.
    """
    named = [(size, (name,)) for size, name in zip(shape, names, strict=True) if name]

    def draw(words: Array, *numbers: Array) -> Array:
        parts = iter(numbers)
        local = tuple(
            next(parts).shape[0] if name else size for size, name in zip(shape, names, strict=True)
        )
        place = sum(
            (n[0] * jnp.uint32(0x9E3779B1 + 2 * i) for i, n in enumerate(numbers)), jnp.uint32(0)
        )
        seed = jnp.concatenate([words, jnp.stack([place, jnp.uint32(len(numbers))])])
        return jax.lax.rng_bit_generator(seed, local, jnp.uint16)[1]

    words = jax.random.bits(key, (2,), jnp.uint32)
    numbers = [jnp.arange(size, dtype=jnp.uint32) for size, _ in named]
    return layout.per_device(draw, [(None,), *(name for _, name in named)], names)(words, *numbers)


def _count(shape: tuple[int, ...]) -> Array:
    """int32 numbers of the elements of an array of `shape`, in order, wrapping at 2**32."""
    number, stride = jnp.zeros(shape, jnp.int32), 1
    for axis in reversed(range(len(shape))):
        step = (stride + 2**31) % 2**32 - 2**31
        number += jax.lax.broadcasted_iota(jnp.int32, shape, axis) * jnp.int32(step)
        stride *= shape[axis]
    return number
