"""Parameters that are no arrays of floats: matrices that compute their own products."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


class Matrix(ABC):
    """A kernel, or a table of embeddings, in another form than an array of floats.

    It stands among the parameters in the place of an array. A subclass is a pytree. The first leaf
    of a table has the shape of the array, which flax compares. If layers are stacked, all leaves
    are.
    """

    @abstractmethod
    def product(self, x: Array, inputs: int) -> Array:
        """Return `x` [..., in] times the kernel, [..., out] in any float type.

        The kernel's first `inputs` axes together are `in`, the others `out`.
        """

    @abstractmethod
    def rows(self, ids: Array) -> Array:
        """Return the vectors of a table [V, E] for `ids`, float32 [..., E]."""

    @abstractmethod
    def row_products(self, x: Array) -> Array:
        """Return the products of `x` [..., E] with all vectors of a table [V, E], [..., V]."""


@partial(
    jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["bits", "inputs_too"]
)
@dataclass(frozen=True)
class FakeQuantized(Matrix):
    """A float matrix that computes what its quantized form will (arXiv 1712.05877, section 3).

    Each output of a kernel, and each vector of a table, has a scale of its own.
    """

    values: Array
    bits: int = 8
    inputs_too: bool = True
    """Whether the inputs of products are rounded too, to 8 bits, each vector by its own scale."""

    def product(self, x: Array, inputs: int) -> Array:
        """Return the product of what is left after rounding."""
        kernel = rounded(self.values, tuple(range(inputs)), self.bits)
        flat = kernel.reshape(math.prod(kernel.shape[:inputs]), -1)
        return jnp.dot(self._input(x), flat.astype(x.dtype))

    def rows(self, ids: Array) -> Array:
        """Return the rounded vectors."""
        return rounded(jnp.take(self.values, ids, axis=0), (-1,), self.bits)

    def row_products(self, x: Array) -> Array:
        """Return the products with the rounded vectors."""
        table = rounded(self.values, (-1,), self.bits).astype(x.dtype)
        return jnp.einsum(
            "...e,ve->...v", self._input(x), table, preferred_element_type=jnp.float32
        )

    def _input(self, x: Array) -> Array:
        return rounded(x, (-1,), 8) if self.inputs_too else x


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def rounded(x: Array, axes: tuple[int, ...], bits: int) -> Array:
    """Return `x` as integers of `bits` bits would hold it; vectors along `axes` share a scale.

    The scale is the largest magnitude / (2^(bits - 1) - 0.5), as in qwix: so the last integer
    stands for as wide a range as all others. The derivative is 1 (straight-through estimator,
    arXiv 1308.3432, section 4).
    """
    wide = x.astype(jnp.float32)
    steps = 2 ** (bits - 1)
    scale = jnp.max(jnp.abs(wide), axis=axes, keepdims=True) / (steps - 0.5)
    # Vectors of zeros have any scale. The bound is that of qwix, 1e-19.
    scale = jnp.where(scale < math.sqrt(jnp.finfo(jnp.float32).tiny), 1.0, scale)
    integers = jnp.clip(jnp.round(wide / scale), -steps, steps - 1)
    return (integers * scale).astype(x.dtype)


@rounded.defjvp
def _rounded_jvp(
    axes: tuple[int, ...], bits: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return rounded(x, axes, bits), dx
