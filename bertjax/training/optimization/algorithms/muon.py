"""Muon: orthogonalized momentum for the matrices of the layers, AdamW for all other parameters."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bertjax.config import OptimizerConfig
from bertjax.model.functional import GENERATOR, Params
from bertjax.training.optimization.algorithms.tensors import inputs_of, is_kernel_of_layers

# Coefficients and number of iterations of Muon's author (kellerjordan.github.io/posts/muon): a
# quintic whose slope at 0 is as large as possible. Singular values end between about 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MATRIX, OTHER = "matrix", "other"


def muon(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return Muon for the kernels of the encoder's layers, and Adam for all other parameters.

    Each layer's kernel is a matrix of its own, inputs by outputs; heads and their widths are one
    axis. Embeddings, biases, norms, the pooler and heads of tasks have Adam.
    """
    # Not optax's `scale_by_muon`: it corrects the momentum's bias as NAdam does, which the author
    # and arXiv 2502.16982 do not. So `trace` is their momentum, with Nesterov's step.
    matrices = optax.chain(
        optax.trace(config.muon_momentum, nesterov=True),
        orthogonalize(config.muon_rms),
    )
    adam = optax.scale_by_adam(config.b1, config.b2, config.eps)
    return optax.partition({MATRIX: matrices, OTHER: adam}, kinds)


def kinds(params: Params) -> Params:
    """Return for each parameter which of the two algorithms it has: MATRIX or OTHER."""

    def kind(path: Any, _: Any) -> str:
        own = path[1:] if path[0].key == GENERATOR else path
        return MATRIX if is_kernel_of_layers(own) else OTHER

    return jax.tree_util.tree_map_with_path(kind, params)


def orthogonalize(rms: float) -> optax.GradientTransformation:
    """Return the transformation from kernels [N, in..., out...] to nearly orthogonal matrices.

    Each is multiplied by rms sqrt(max(in, out)), so that the root-mean-square of its elements is
    about `rms` for every shape (arXiv 2502.16982, equation 4).
    """

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def step(path: Any, kernels: Array) -> Array:
        matrices = kernels.reshape(kernels.shape[0], inputs_of(path, kernels), -1)
        factor = rms * math.sqrt(max(matrices.shape[1:]))
        return (factor * orthogonalized(matrices)).reshape(kernels.shape)

    def update(steps: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree_util.tree_map_with_path(step, steps), state

    return optax.GradientTransformation(init, update)


def orthogonalized(matrices: Array) -> Array:
    """Return U V^T, about, for matrices U S V^T [N, in, out]; 0 for a matrix of zeros.

    By the iteration X <- a X + (b A + c A^2) X with A = X X^T (Newton-Schulz).
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    # The iteration of a transposed matrix is the transposed one; A is smaller for a wide matrix.
    x = matrices.swapaxes(1, 2) if is_tall else matrices
    # Singular values must be at most 1, and the Frobenius norm is no smaller than the largest.
    norm = jnp.sqrt(jnp.sum(x**2, (1, 2), keepdims=True))
    x = x / (norm + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        product = x @ x.swapaxes(1, 2)
        x = a * x + (b * product + c * product @ product) @ x
    return x.swapaxes(1, 2) if is_tall else x
