"""Random bits for dropout, from a hash or from JAX's generators.

The hash takes a few integer operations per element and can be part of any fusion or kernel. Each
row of an array has its own seed, and the bits of element i of the row are a mix of i with this
seed. So the bits depend only on the key and on the position in the whole array. They are the same
on any mesh, in the forward and the backward pass, in XLA and in a kernel. They are good enough for
masks, but not for sampling.

The mix has two rounds of multiplication and xorshift. Its constants were found by search by
C. Wellons (nullprogram.com/blog/2018/07/31, "lowbias32"). A second word of the seed is added
between the rounds.
"""

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.model.layout import Layout, Names

# Multipliers of lowbias32 as signed 32-bit integers, because TPU kernels compute with these.
FIRST, SECOND = 0x7FEB352D, 0x846CA68B - 2**32


def _shift(x: Array, bits: int) -> Array:
    return jax.lax.shift_right_logical(x, jnp.int32(bits))


def mix(counter: Array, low: Array, high: Array) -> Array:
    """Return 32 random bits, int32, for each int32 `counter` under the seed words `low` and `high`.

    The three arguments broadcast.
    """
    x = counter ^ low
    x = (x ^ _shift(x, 16)) * jnp.int32(FIRST) + high
    x = (x ^ _shift(x, 15)) * jnp.int32(SECOND)
    return x ^ _shift(x, 16)


def seed_words(key: Array | None) -> Array:
    """Return the two int32 seed words of an array, from a `jax.random` key; zeros without one."""
    if key is None:
        return jnp.zeros(2, jnp.int32)
    return jax.lax.bitcast_convert_type(jax.random.bits(key, (2,), jnp.uint32), jnp.int32)


def element_mask(low: Array, high: Array, row: Array, element: Array, rate: float) -> Array:
    """Return True for the elements that are kept if each is dropped with probability `rate`.

    The probability is exact to 2**-32. `low` and `high` are the seed words of the array, `row` and
    `element` are int32 numbers; all four broadcast.
    """
    # A row's two seed words come from the array's two, in either order, so that they differ.
    bits = mix(element, mix(row, low, high), mix(row, high, low))
    # As signed integers, bits are at least -2**31.
    # Capped, so that the threshold is an int32 too.
    threshold = min(round(rate * 2**32), 2**32 - 1) - 2**31
    return bits >= threshold


def keep_mask(key: Array, shape: tuple[int, ...], row_axes: int, rate: float) -> Array:
    """Return `element_mask` for an array of `shape`; its first `row_axes` axes number the rows."""
    ones = (1,) * len(shape)
    low, high = (word.reshape(ones) for word in seed_words(key))
    row = _count((*shape[:row_axes], *ones[row_axes:]))
    element = _count((*ones[:row_axes], *shape[row_axes:]))
    return element_mask(low, high, row, element, rate)


def score_mask(
    seed: Array, row: Array, head: Array, query: Array, key: Array, length: int, rate: float
) -> Array | None:
    """Return the elements of `keep_mask` for probabilities [B, H, L, L] at the given indices.

    Returns None if `rate` is 0. This is for kernels, which compute a part of the elements at a
    time. `length` is L. `row` and `head` count from the device's first row and head. `seed`, int32
    [5], has the two seed words of the array, the numbers of the device's first row and first head,
    and the total number of heads.
    """
    if not rate:
        return None
    # The number of row and head in the whole array, on whatever device they are.
    number = (seed[2] + row) * seed[4] + seed[3] + head
    return element_mask(seed[0], seed[1], number, query * length + key, rate)


def drop(x: Array, keep: Array | None, scale: float) -> Array:
    """Return `x * scale` where `keep` is True and 0 elsewhere; `x` itself if `keep` is None.

    The product is computed in float32; the result has the dtype of `x`.
    """
    if keep is None:
        return x
    # In float32: bfloat16 would round the factor 1 / 0.9 to 1.109.
    return jnp.where(keep, x.astype(jnp.float32) * scale, 0).astype(x.dtype)


def threefry(key: Array, shape: tuple[int, ...], layout: Layout, names: Names) -> Array:
    """Return 16 random bits per element, uint16, from JAX's generator; the same on any mesh."""
    # On any mesh, since each element's bits depend on its position alone
    # (`jax_threefry_partitionable`, JAX's default).
    return jax.random.bits(key, shape, jnp.uint16)


def rbg(key: Array, shape: tuple[int, ...], layout: Layout, names: Names) -> Array:
    """Return 16 random bits per element, uint16, from the device's hardware generator.

    Each device draws the bits of its part with its own seed. If this were left to the compiler,
    every device would draw the bits of the whole array.
    """
    sizes, cut_names = [], []
    for size, name in zip(shape, names, strict=True):
        if name:
            sizes.append(size)
            cut_names.append((name,))

    def draw(words: Array, *numbers: Array) -> Array:
        """Return the bits of one device's part; `numbers` are its indices along each named axis."""
        parts = iter(numbers)
        local_shape = tuple(
            next(parts).shape[0] if name else size for size, name in zip(shape, names, strict=True)
        )
        # `part` is different on each device. It is the sum of the part's first indices, each
        # multiplied by an odd number near 2**32 / golden ratio that differs from axis to axis.
        part = jnp.uint32(0)
        for axis, indices in enumerate(numbers):
            part = part + indices[0] * jnp.uint32(0x9E3779B1 + 2 * axis)
        # XLA's generator takes four words as its state.
        seed = jnp.concatenate([words, jnp.stack([part, jnp.uint32(len(numbers))])])
        return jax.lax.rng_bit_generator(seed, local_shape, jnp.uint16)[1]

    words = jax.random.bits(key, (2,), jnp.uint32)
    numbers = [jnp.arange(size, dtype=jnp.uint32) for size in sizes]
    return layout.per_device(draw, [(None,), *cut_names], names)(words, *numbers)


def _count(shape: tuple[int, ...]) -> Array:
    """Return the numbers of an array's elements in order, int32 of `shape`, wrapping at 2**32."""
    number, stride = jnp.zeros(shape, jnp.int32), 1
    for axis in reversed(range(len(shape))):
        step = (stride + 2**31) % 2**32 - 2**31  # the stride as a signed 32-bit integer
        number += jax.lax.broadcasted_iota(jnp.int32, shape, axis) * jnp.int32(step)
        stride *= shape[axis]
    return number
