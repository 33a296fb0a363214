"""Product with a kernel most of whose weights are 0, from the others alone.

The kernel is stored by outputs: its weights that are not 0, their inputs, and where those of each
output begin (CSR of the transposed kernel). `jax.experimental.sparse` has the product; on CPUs it
is Eigen's.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

PREFIX = "sparse_"


class SparseKernel(NamedTuple):
    """A kernel [in, out] by outputs; with a first axis of N, a stack of layers' kernels."""

    weights: Array
    """[S] float32; a stack has as many for each layer, 0 after those of its last output."""
    inputs: Array
    """[S] int32, the input of each weight, ascending for an output."""
    starts: Array
    """[out + 1] int32, where the weights of each output begin, and their end."""

    def named(self) -> dict[str, Array]:
        """Return the arrays as parameters of a linear layer, in place of `kernel`."""
        return {f"{PREFIX}{name}": value for name, value in self._asdict().items()}


def from_named(params: Mapping[str, Array]) -> SparseKernel:
    """Return the kernel whose arrays are among the parameters of a linear layer."""
    return SparseKernel(*(params[f"{PREFIX}{name}"] for name in SparseKernel._fields))


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


def sparse_product(x: Array, kernel: SparseKernel) -> Array:
    """Return `x` [..., in] times the kernel [in, out], [..., out] in the type of `x`.

    Sums are in float32: Eigen has no product of bfloat16.
    """
    # Imported here: dense models need not wait for it.
    from jax.experimental.sparse import BCSR

    outputs = kernel.starts.shape[0] - 1
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    arrays: Any = tuple(kernel)
    by_output = BCSR(arrays, shape=(outputs, x.shape[-1])) @ rows.T
    return by_output.T.reshape(*x.shape[:-1], outputs).astype(x.dtype)
