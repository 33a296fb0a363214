"""Matrices of integers that JAX multiplies, by qwix."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.compression.quantize.options import Activations, Granularity
from bertjax.model.matrices import Place
from bertjax.model.matrix import Matrix

SCALE, INPUT_SCALE, INPUT_ZERO = "_scale", "_input_scale", "_input_zero"
"""Ends of the names of what is stored beside the integers of a matrix."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "scale", "input_scale", "input_zero"],
    meta_fields=["activations"],
)
@dataclass(frozen=True)
class IntegerMatrix(Matrix):
    """A kernel, or a table of embeddings, as integers and scales."""

    values: Array
    """int8, in the shape of the float matrix."""
    scale: Array
    """float32; where axes share a scale, their size is 1."""
    input_scale: Array | None
    """Of static activations: what a step of the inputs of products means, float32 []."""
    input_zero: Array | None
    """Of static activations: the integer that means 0, int8 []."""
    activations: Activations

    def product(self, x: Array, inputs: int) -> Array:
        """Return the product, float32."""
        shape = self.values.shape
        flat = self.values.reshape(math.prod(shape[:inputs]), -1)
        return self._product(x, flat, self.scale.reshape(1, -1), 0)

    def rows(self, ids: Array) -> Array:
        """Return the vectors as floats."""
        import qwix

        if len(self.scale) > 1:
            scale = jnp.take(self.scale, ids, axis=0)
        else:
            scale = self.scale.reshape((1,) * (ids.ndim + 1))
        return qwix.dequantize(qwix.QArray(jnp.take(self.values, ids, axis=0), scale))

    def row_products(self, x: Array) -> Array:
        """Return the products, float32."""
        return self._product(x, self.values, self.scale, 1)

    def _product(self, x: Array, values: Array, scale: Array, axis: int) -> Array:
        import qwix

        matrix = qwix.QArray(values, scale)
        numbers = (((x.ndim - 1,), (axis,)), ((), ()))
        left: Any = x
        if self.activations == "none":
            matrix = matrix.astype(x.dtype)
        elif self.activations == "dynamic":
            # One scale for each vector: no row depends on the others of its batch.
            vectors = range(x.ndim - 1)
            left = qwix.quantize(x.astype(jnp.float32), jnp.int8, channelwise_axes=vectors)
        else:
            left = self._in_range(x)
        return qwix.dot_general(left, matrix, numbers, preferred_element_type=jnp.float32)

    def _in_range(self, x: Array) -> Any:
        """Return `x` as a `QArray` by the range that was measured before."""
        import qwix

        assert self.input_scale is not None
        assert self.input_zero is not None
        one = (1,) * x.ndim
        scale, zero = self.input_scale.reshape(one), self.input_zero.reshape(one)
        steps = jnp.round(x.astype(jnp.float32) / scale) + zero.astype(jnp.float32)
        return qwix.QArray(jnp.clip(steps, -128, 127).astype(jnp.int8), scale, zero)


@dataclass(frozen=True)
class Range:
    """The least and the largest input of a matrix: float32 [], or [N] of stacked layers."""

    least: np.ndarray
    largest: np.ndarray


def stored_integers(
    path: str,
    array: np.ndarray,
    place: Place,
    *,
    bits: int,
    granularity: Granularity,
    inputs: Range | None = None,
) -> dict[str, np.ndarray]:
    """Return what is stored of a float matrix, by name: integers, scales, and what inputs need.

    Integers are int8 in the shape of the matrix, or, of 4 bits, uint8 with two of them each (see
    `packed`). Each output of a kernel, or each vector of a table, has a scale, or each matrix.
    """
    import qwix

    kinds = {4: jnp.int4, 8: jnp.int8}
    kept = {axis for axis in range(array.ndim) if axis not in place.summed}
    if granularity == "tensor":
        kept = {0} if place.is_stacked else set()
    quantized = qwix.quantize(
        jnp.asarray(array, jnp.float32), kinds[bits], channelwise_axes=sorted(kept)
    )
    values = np.asarray(quantized.qvalue.astype(jnp.int8))
    stored = {path: values, f"{path}{SCALE}": np.asarray(quantized.scale)}
    if bits == 4:
        stored[path] = packed(values, len(values) if place.is_stacked else 1)
    if inputs is not None:
        scale, zero = range_steps(inputs)
        stored[f"{path}{INPUT_SCALE}"], stored[f"{path}{INPUT_ZERO}"] = scale, zero
    return stored


def range_steps(inputs: Range) -> tuple[np.ndarray, np.ndarray]:
    """Return what a step of int8 means in a range that has 0 in it, and the integer of 0."""
    least, largest = np.minimum(inputs.least, 0), np.maximum(inputs.largest, 0)
    scale = (largest - least) / 255
    # Inputs that are always 0 have any scale.
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, 1).astype(np.float32)
    return scale, np.clip(np.rint(-128 - least / scale), -128, 127).astype(np.int8)


def packed(values: np.ndarray, layers: int) -> np.ndarray:
    """Return integers of 4 bits, two in each uint8 [layers, bytes]: the first in the low bits."""
    flat = values.reshape(layers, -1).astype(np.uint8) & 15
    if flat.shape[1] % 2:
        flat = np.pad(flat, ((0, 0), (0, 1)))
    return flat[:, ::2] | flat[:, 1::2] << 4


def unpacked(pairs: Array, shape: tuple[int, ...]) -> Array:
    """Return the integers of `packed` as int8 in the shape of the matrix."""
    both = jnp.stack([pairs & 15, pairs >> 4], axis=-1)
    flat = both.reshape(pairs.shape[0], -1)[:, : math.prod(shape) // pairs.shape[0]]
    # The fourth bit is the sign: 8 to 15 are -8 to -1.
    return ((flat ^ 8).astype(jnp.int8) - 8).reshape(shape)


def read_matrix(
    path: str, shape: tuple[int, ...], stored: Mapping[str, Array], activations: Activations
) -> IntegerMatrix:
    """Return the matrix of this shape that `stored_integers` has stored."""
    values = stored[path]
    if values.dtype == jnp.uint8:
        values = unpacked(values, shape)
    return IntegerMatrix(
        values,
        stored[f"{path}{SCALE}"],
        stored.get(f"{path}{INPUT_SCALE}"),
        stored.get(f"{path}{INPUT_ZERO}"),
        activations,
    )


def names_of(path: str) -> list[str]:
    """Return the names under which a matrix may be stored."""
    return [path, *(f"{path}{end}" for end in (SCALE, INPUT_SCALE, INPUT_ZERO))]
