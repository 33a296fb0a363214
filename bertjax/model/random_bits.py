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

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry2x32_p

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


def keep_mask(
    key: Array, row_numbers: Array, shape: tuple[int, ...], row_axes: int, rate: float
) -> Array:
    """Return `element_mask` for an array of `shape`; its first `row_axes` axes number the rows.

    `row_numbers` are those of the first axis in the whole batch, int32 `[shape[0]]`.
    """
    ones = (1,) * len(shape)
    low, high = (word.reshape(ones) for word in seed_words(key))
    # Of the axes after the first, such as heads.
    inner = shape[1:row_axes]
    row = row_numbers.reshape(-1, *ones[1:]) * math.prod(inner)
    row = row + _count((1, *inner, *ones[row_axes:]))
    element = _count((*ones[:row_axes], *shape[row_axes:]))
    return element_mask(low, high, row, element, rate)


def score_seed(words: Array, heads: Array, total_heads: int, rows: Array) -> Array:
    """Return the seed of `score_mask` on a device with heads and rows of these numbers, int32."""
    return jnp.concatenate([words, heads[:1], jnp.full(1, total_heads, jnp.int32), rows])


def score_mask(
    seed: Array, row: Array, head: Array, query: Array, key: Array, length: int, rate: float
) -> Array | None:
    """Return the elements of `keep_mask` for probabilities [B, H, L, L] at the given indices.

    Returns None if `rate` is 0. This is for kernels, which compute a part of the elements at a
    time. `length` is L. `row` and `head` count from the device's first row and head. `seed`, int32
    [4 + rows], has the two seed words of the array, the number of the device's first head, the
    total number of heads, and the number of each of the device's rows in the whole batch.
    """
    if not rate:
        return None
    # The number of row and head in the whole array, on whatever device they are.
    number = seed[4 + row] * seed[3] + seed[2] + head
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
    """Return 16 random bits per element, uint16, as `jax.random.bits` gives the whole batch."""
    return threefry_words(key, shape, layout).astype(jnp.uint16)


def threefry_words(key: Array, shape: tuple[int, ...], layout: Layout) -> Array:
    """Return 32 random bits per element, uint32, as `jax.random.bits` gives the whole batch.

    The first axis has the rows of `layout`. Each element's bits depend on the key and on its
    position in the whole batch, so they are the same on any mesh and in any part of the batch.
    """
    # `jax.random.bits` has no argument for the first row, so its counters are made here
    # (`jax_threefry_partitionable`): the 64-bit position of the element, in two words.
    row_numbers = layout.row_numbers(shape[0]).astype(jnp.uint32)
    high, low = _product(row_numbers, math.prod(shape[1:]))
    ones = (1,) * (len(shape) - 1)
    element = _count((1, *shape[1:])).astype(jnp.uint32)
    first_low = low.reshape(-1, *ones)
    low = first_low + element
    carry = (low < first_low).astype(jnp.uint32)
    high = high.reshape(-1, *ones) + carry
    first_key, second_key = jax.random.key_data(key)
    first, second = threefry2x32_p.bind(first_key, second_key, high, low)
    return first ^ second


def uniform(words: Array) -> Array:
    """Return float32 numbers in [0, 1) from 32 random bits each, as `jax.random.uniform` does."""
    # The high 23 bits are the fraction of a number in [1, 2), whose sign and exponent are those
    # of 1.0 (IEEE 754).
    one_to_two = (words >> jnp.uint32(9)) | jnp.uint32(0x3F800000)
    return jax.lax.bitcast_convert_type(one_to_two, jnp.float32) - 1


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


def _product(x: Array, factor: int) -> tuple[Array, Array]:
    """Return the high and the low word of the product of uint32 numbers and a 32-bit factor."""
    # In halves of 16 bits, whose products fit 32 bits: JAX has no 64-bit integers by default.
    mask, half = jnp.uint32(0xFFFF), jnp.uint32(16)
    x_high, x_low = x >> half, x & mask
    high, low = jnp.uint32(factor >> 16), jnp.uint32(factor & 0xFFFF)
    middle = x_high * low + (x_low * low >> half)
    second_middle = x_low * high + (middle & mask)
    return x_high * high + (middle >> half) + (second_middle >> half), x * jnp.uint32(factor)
