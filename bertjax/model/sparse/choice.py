"""Choice between the sparse and the dense product of each kernel, by measuring both.

It is made once, when a model is loaded for use. Layers are one stack, so their kernels of one kind
have one form: the sparse one has room for the layer with the most weights.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.model.functional import LAYERS
from bertjax.model.matrices import with_matrices
from bertjax.model.sparse.product import SparseKernel, sparse_stack

log = logging.getLogger("bertjax")

# Kernels with fewer zeros are not measured: dense products win there (docs/compression.md).
LEAST_ZEROS = 0.8
SAMPLE = 4096  # number of weights of a stack that are looked at before all are
# Tokens of a product: those of a short text alone, and of a batch.
MEASURED_ROWS = (32, 512)
TURNS = 7


class _Stack(NamedTuple):
    """The kernels of one kind in all layers."""

    name: str
    """Such as `mlp/up`."""
    kernels: Array
    """[N, in..., out...]"""
    inputs: int


def with_sparse_products(config: ModelConfig, params: Any) -> Any:
    """Return `params` with kernels of layers in sparse form, as `config.sparse_products` says.

    With `auto` these are the ones whose sparse product is faster on the device that has them; one
    line of the log says what was chosen. Kernels that are not chosen, and all other parameters, are
    the same arrays. Raises `UserError` for `always` where several devices have a part of a kernel
    each.
    """
    if config.sparse_products == "never" or config.kernels == "pallas":
        return params
    chosen: dict[str, SparseKernel] = {}
    dense = []
    for stack in _stacks(config, params):
        if config.sparse_products == "always":
            _check_whole(stack)
        elif not _may_gain(stack):
            continue
        kernels = np.asarray(stack.kernels)
        kernels = kernels.reshape(len(kernels), stack.inputs, -1)
        form = sparse_stack(kernels)
        if config.sparse_products == "always" or _is_faster(config, stack, kernels, form):
            chosen[stack.name] = jax.device_put(form, _everywhere(stack))
        else:
            dense.append(stack.name)
    if not chosen and not dense:
        return params
    log.info("products with kernels: sparse %s; dense %s", _listed(chosen), _listed(dense))
    made = {f"{LAYERS}{name}/kernel": form for name, form in chosen.items()}
    return with_matrices(params, made)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _stacks(config: ModelConfig, params: Any) -> list[_Stack]:
    """Return the kernels of the layers, by kind."""
    stacks = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params["encoder"]["layers"]):
        *names, last = (key.key for key in path)
        if last == "kernel":
            name = "/".join(names)
            inputs = config.attention_width if name == "attention/output" else leaf.shape[1]
            stacks.append(_Stack(name, jnp.asarray(leaf), inputs))
    return stacks


def _check_whole(stack: _Stack) -> None:
    check(
        stack.kernels.is_fully_replicated,
        where="model.sparse_products",
        found="always, where devices share a kernel",
        expected="auto or never, or a mesh with fsdp 1 and tensor 1",
    )


def _may_gain(stack: _Stack) -> bool:
    """Return True if measuring is worth its time: on one device, with enough zeros in a sample.

    Several devices would each compute the sparse product of all rows. And several processes would
    measure each for itself, and could end with different programs.
    """
    if len(stack.kernels.sharding.device_set) > 1:
        return False
    # An odd distance, because zeros may lie in a pattern.
    sample = stack.kernels.reshape(-1)[:: (stack.kernels.size // SAMPLE) | 1]
    return float(np.mean(np.asarray(sample) == 0)) >= LEAST_ZEROS


def _is_faster(config: ModelConfig, stack: _Stack, kernels: np.ndarray, form: SparseKernel) -> bool:
    """Return True if the sparse product is the faster one for every number of rows measured."""
    (device,) = stack.kernels.sharding.device_set
    # Dense products take the same time for each layer, sparse ones the most for this one.
    fullest = int(np.argmax(form.starts[:, -1]))
    dense = jax.device_put(jnp.asarray(kernels[fullest], config.dtype), device)
    sparse = jax.device_put(form.of_layer(fullest), device)
    return all(time_ratio(dense, sparse, rows) < 1 for rows in MEASURED_ROWS)


def time_ratio(dense: Array, sparse: SparseKernel, rows: int, turns: int = TURNS) -> float:
    """Return the time of the sparse product divided by that of the dense one, on their device.

    `dense` is [in, out] in the type of the product; `rows` is the number of vectors of width in.
    The two take turns, so that what else the machine does meets both. The shortest times are
    divided, since it can only add to them.
    """
    # Any values do. They are drawn, because some devices save power with zeros.
    values = np.random.default_rng(0).normal(size=(rows, dense.shape[0])).astype(np.float32)
    (device,) = dense.sharding.device_set
    x = jax.device_put(jnp.asarray(values, dense.dtype), device)
    products: tuple[Callable[[], Array], ...] = (
        lambda: _dense_product(x, dense),
        lambda: _sparse_product(x, sparse),
    )
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for product, own in zip(products, times, strict=True):
            begin = time.perf_counter()
            product().block_until_ready()
            # The first turn compiles.
            if turn:
                own.append(time.perf_counter() - begin)
    in_dense, in_sparse = map(min, times)
    return in_sparse / in_dense


_dense_product = jax.jit(jnp.dot)
_sparse_product = jax.jit(lambda x, kernel: kernel.product(x, 1))


def _everywhere(stack: _Stack) -> Any:
    """Return the sharding of arrays that each device of a stack has whole."""
    place = stack.kernels.sharding
    if isinstance(place, NamedSharding):
        return NamedSharding(place.mesh, PartitionSpec())
    return place
