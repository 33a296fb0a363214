"""Product with a kernel most of whose weights are 0, from the others alone.

The kernel is stored by outputs: its weights that are not 0, their inputs, and where those of each
output begin (CSR of the transposed kernel). `jax.experimental.sparse` has the product; on CPUs it
is Eigen's.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.model.matrix import Matrix


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "inputs", "starts"],
    meta_fields=[],
)
@dataclass(frozen=True)
class SparseKernel(Matrix):
    """A kernel [in, out] by outputs; with a first axis of N, a stack of layers' kernels."""

    weights: Array
    """[S] float32; a stack has as many for each layer, 0 after those of its last output."""
    inputs: Array
    """[S] int32, the input of each weight, ascending for an output."""
    starts: Array
    """[out + 1] int32, where the weights of each output begin, and their end."""

    def product(self, x: Array, inputs: int) -> Array:
        """Return `x` [..., in] times the kernel, [..., out] in the type of `x`.

        Sums are in float32: Eigen has no product of bfloat16.
        """
        # Imported here: dense models need not wait for it.
        from jax.experimental.sparse import BCSR

        outputs = self.starts.shape[0] - 1
        rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
        arrays = (self.weights, self.inputs, self.starts)
        by_output = BCSR(arrays, shape=(outputs, x.shape[-1])) @ rows.T
        return by_output.T.reshape(*x.shape[:-1], outputs).astype(x.dtype)

    def rows(self, ids: Array) -> NoReturn:
        """Raise `TypeError`: it is no table of vectors."""
        raise TypeError("a sparse kernel is no table of vectors")

    def row_products(self, x: Array) -> NoReturn:
        """Raise `TypeError`: it is no table of vectors."""
        raise TypeError("a sparse kernel is no table of vectors")

    def of_layer(self, number: int) -> "SparseKernel":
        """Return the kernel of one layer of a stack."""
        return SparseKernel(self.weights[number], self.inputs[number], self.starts[number])


def sparse_stack(kernels: np.ndarray) -> SparseKernel:
    """Return a stack of kernels [N, in, out] float32 in sparse form, as NumPy arrays.

    All have the room of the one with the most weights.
    """
    count, _, outputs = kernels.shape
    by_output = np.ascontiguousarray(kernels.swapaxes(1, 2))
    is_weight = by_output != 0
    of_output = np.count_nonzero(is_weight, axis=2)
    starts = np.zeros((count, outputs + 1), np.int32)
    np.cumsum(of_output, axis=1, out=starts[:, 1:])
    # One at least: a product with no weight at all has arrays without elements.
    room = max(int(starts[:, -1].max()), 1)
    weights, inputs = np.zeros((count, room), np.float32), np.zeros((count, room), np.int32)
    for layer in range(count):
        _, columns = np.nonzero(is_weight[layer])
        inputs[layer, : len(columns)] = columns
        weights[layer, : len(columns)] = by_output[layer][is_weight[layer]]
    arrays: Any = (weights, inputs, starts)
    return SparseKernel(*arrays)
