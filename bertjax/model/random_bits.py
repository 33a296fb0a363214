"""Random bits for dropout, from a hash or from JAX's generators.

The hash is a few integer operations an element, in any fusion or kernel. Each row of an array has
a seed of its own; within it, element i's bits are a mix of i with the seed. So the bits are a
function of (key, position in the whole array): the same on any mesh, in the forward and the
backward pass, in XLA and in a kernel. They serve for masks, not for sampling.

The mix is the two-round multiply-xorshift whose constants C. Wellons found by search
(nullprogram.com/blog/2018/07/31, "lowbias32"), with a second word of the seed added between the
rounds.
"""

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.model.layout import Layout, Names

# lowbias32's multipliers, as signed 32-bit integers: TPU kernels compute with those.
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
    """Return True for elements that stay when each is dropped with probability `rate`.

    The probability is exact to 2**-32. `low` and `high` are the array's seed words, `row` and
    `element` int32 numbers; all four broadcast.
    """
    # A row's two seed words come from the array's two, in either order, so that they differ.
    bits = mix(element, mix(row, low, high), mix(row, high, low))
    # As signed integers, bits are at least -2**31.
    # Capped, so that the threshold is an int32 too.
    threshold = min(round(rate * 2**32), 2**32 - 1) - 2**31
    return bits >= threshold


def keep_mask(key: Array, shape: tuple[int, ...], row_axes: int, rate: float) -> Array:
    """Return `element_mask` for an array of `shape`, whose first `row_axes` axes count its rows."""
    ones = (1,) * len(shape)
    low, high = (word.reshape(ones) for word in seed_words(key))
    row = _count((*shape[:row_axes], *ones[row_axes:]))
    element = _count((*ones[:row_axes], *shape[row_axes:]))
    return element_mask(low, high, row, element, rate)


def score_mask(
    seed: Array, row: Array, head: Array, query: Array, key: Array, length: int, rate: float
) -> Array | None:
    """Return `keep_mask` of probabilities [B, H, L, L] at these numbers; None without a `rate`.

    For kernels, which compute some of the elements at a time. `length` is L. `row` and `head` are
    counted from the first of their device. `seed` [5] int32 is the array's two seed words, the
    numbers of the device's first row and first head, and the number of heads in all.
    """
    if not rate:
        return None
    # The number of row and head in the whole array, on whatever device they are.
    number = (seed[2] + row) * seed[4] + seed[3] + head
    return element_mask(seed[0], seed[1], number, query * length + key, rate)


def drop(x: Array, keep: Array | None, scale: float) -> Array:
    """Return `x` times `scale`, in float32, where `keep` is True, and 0 elsewhere.

    In the type of `x`; `x` itself without `keep`.
    """
    if keep is None:
        return x
    # In float32: bfloat16 would round the factor 1 / 0.9 to 1.109.
    return jnp.where(keep, x.astype(jnp.float32) * scale, 0).astype(x.dtype)


def threefry(key: Array, shape: tuple[int, ...], layout: Layout, names: Names) -> Array:
    """Return 16 bits an element, uint16, by JAX's generator: the same on any mesh."""
    # On any mesh, since each element's bits depend on its position alone
    # (`jax_threefry_partitionable`, JAX's default).
    return jax.random.bits(key, shape, jnp.uint16)


def rbg(key: Array, shape: tuple[int, ...], layout: Layout, names: Names) -> Array:
    """Return 16 bits an element, uint16, by the device's own generator.

    Each device draws its part with a seed of its own. Left to the compiler, every device would draw
    the bits of the whole array.
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
        # Tells the devices' parts apart: their first indices, each times an odd number near 2**32
        # over the golden ratio, another one for each axis.
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
