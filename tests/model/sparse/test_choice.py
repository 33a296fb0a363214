import dataclasses
import logging
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bertjax.config import FAMILIES, MeshConfig
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.model.sparse import choice
from bertjax.model.sparse.choice import with_sparse_products
from bertjax.model.sparse.product import SparseKernel
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from tests.factory import SMALL_MODEL, random_batch
from tests.families.tiny import QUICK, tiny

KINDS = ["attention/key", "attention/output", "attention/query", "attention/value"]
KINDS += ["mlp/down", "mlp/up"]


def params_of(config, zeros, kinds=None):
    """New parameters; so large a share of the layers' kernels is 0."""
    params = jax.tree.map(np.asarray, functional.init(config, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def sparse(path, leaf):
        *names, last = (key.key for key in path)
        if last != "kernel" or (kinds and "/".join(names) not in kinds):
            return jnp.asarray(leaf)
        return jnp.asarray(np.where(rng.random(leaf.shape) < zeros, 0, leaf * 3))

    layers = jax.tree_util.tree_map_with_path(sparse, params["encoder"]["layers"])
    return {**params, "encoder": {**params["encoder"], "layers": layers}}


def sparse_kinds(params):
    leaves = jax.tree_util.tree_leaves_with_path(params["encoder"]["layers"], is_leaf=is_sparse)
    return ["/".join(key.key for key in path[:-1]) for path, leaf in leaves if is_sparse(leaf)]


def is_sparse(leaf):
    return isinstance(leaf, SparseKernel)


def hidden(config, params, batch):
    return jax.jit(lambda p: functional.encode(config, p, batch).hidden_BxLxD)(params)


MADE = """
import logging, sys
import jax.numpy as jnp, numpy as np
from bertjax.config import ModelConfig
from bertjax.model.sparse.choice import with_sparse_products
from bertjax.model.sparse.product import SparseKernel

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
dense = np.random.default_rng(0).normal(size=(2, 768, 768)).astype(np.float32)
sparse = dense * (np.random.default_rng(1).random(dense.shape) < 0.001)
kernels = {"up": {"kernel": jnp.asarray(sparse)}, "down": {"kernel": jnp.asarray(dense)}}
chosen = with_sparse_products(ModelConfig(), {"encoder": {"layers": {"mlp": kernels}}})
mlp = chosen["encoder"]["layers"]["mlp"]
assert mlp["down"]["kernel"] is kernels["down"]["kernel"]
assert isinstance(mlp["up"]["kernel"], SparseKernel)
"""


def test_a_kernel_of_999_zeros_in_1000_is_measured_faster_sparse_and_a_dense_one_stays():
    # In a process of its own, whose compiler optimizes, as that of users does and that here not.
    changed = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "NPROC")
    environment = {name: value for name, value in os.environ.items() if name not in changed}
    run = subprocess.run(
        [sys.executable, "-c", MADE], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "products with kernels: sparse mlp/up; dense none\n"


def test_what_is_chosen_takes_the_place_of_its_kernel_and_all_else_stays(monkeypatch):
    monkeypatch.setattr(choice, "time_ratio", lambda dense, sparse, rows: 0.5)
    params = params_of(SMALL_MODEL, 0.95, KINDS[:5])
    chosen = with_sparse_products(SMALL_MODEL, params)
    assert sparse_kinds(chosen) == KINDS[:5]
    after, before = (flatten_dict(tree, sep="/") for tree in (chosen, params))
    assert after.keys() == before.keys()
    for path, leaf in before.items():
        is_chosen = path in {f"encoder/layers/{kind}/kernel" for kind in KINDS[:5]}
        assert is_chosen or after[path] is leaf, path


def test_dense_models_are_returned_as_they_are_without_measuring(monkeypatch, caplog):
    monkeypatch.setattr(choice, "time_ratio", lambda *_: pytest.fail("measured"))
    params = params_of(SMALL_MODEL, 0.5)
    with caplog.at_level(logging.INFO):
        assert with_sparse_products(SMALL_MODEL, params) is params
    assert not caplog.messages


def test_what_is_measured_slower_for_one_number_of_rows_stays_dense(monkeypatch, caplog):
    params = params_of(SMALL_MODEL, 0.9)
    ratios = {32: 0.5, 512: 1.5}
    monkeypatch.setattr(choice, "time_ratio", lambda dense, sparse, rows: ratios[rows])
    with caplog.at_level(logging.INFO):
        unchanged = with_sparse_products(SMALL_MODEL, params)
    assert sparse_kinds(unchanged) == []
    assert caplog.messages == [f"products with kernels: sparse none; dense {', '.join(KINDS)}"]
    ratios[512] = 0.9
    assert sparse_kinds(with_sparse_products(SMALL_MODEL, params)) == KINDS


def test_never_and_always_do_not_measure(monkeypatch):
    monkeypatch.setattr(choice, "time_ratio", lambda *_: pytest.fail("measured"))
    never = dataclasses.replace(SMALL_MODEL, sparse_products="never")
    always = dataclasses.replace(SMALL_MODEL, sparse_products="always")
    params = params_of(SMALL_MODEL, 0.99)
    assert with_sparse_products(never, params) is params
    assert sparse_kinds(with_sparse_products(always, params_of(SMALL_MODEL, 0.0))) == KINDS


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES],
)
def test_sparse_products_give_the_hidden_states_of_dense_ones(name, largest):
    config = dataclasses.replace(tiny(name), sparse_products="always")
    params = params_of(config, 0.9)
    batch = {
        key: value
        for key, value in random_batch(np.random.default_rng(0), 3).items()
        if key in ("input_ids", "input_mask")
    }
    expected = hidden(config, params, batch)
    found = hidden(config, with_sparse_products(config, params), batch)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    largest("hidden states by sparse products", difference, 1e-5)


def test_several_devices_have_dense_products_unless_always_is_asked_for(largest):
    params = params_of(SMALL_MODEL, 0.99)
    mesh = make_mesh(MeshConfig(data=8), jax.devices()[:8])
    shared = jax.device_put(params, rules.replicated(mesh))
    assert with_sparse_products(SMALL_MODEL, shared) is shared
    always = dataclasses.replace(SMALL_MODEL, sparse_products="always")
    batch = {"input_ids": random_batch(np.random.default_rng(0), 8)["input_ids"]}
    expected = hidden(SMALL_MODEL, params, batch)
    on_mesh = jax.device_put(batch, rules.batch_sharding(mesh))
    found = hidden(always, with_sparse_products(always, shared), on_mesh)
    largest("hidden states by sparse products, 8 devices", np.abs(found - expected).max(), 1e-5)


def test_always_is_refused_where_devices_share_a_kernel():
    always = dataclasses.replace(SMALL_MODEL, sparse_products="always")
    mesh = make_mesh(MeshConfig(data=1, fsdp=8), jax.devices()[:8])
    shardings = rules.tree_shardings(mesh, functional.logical_axes(SMALL_MODEL))
    params = jax.device_put(params_of(SMALL_MODEL, 0.9), shardings)
    with pytest.raises(UserError, match=r"model\.sparse_products: found always, where devices"):
        with_sparse_products(always, params)


def test_always_is_refused_beside_the_kernels_that_read_dense_ones():
    with pytest.raises(UserError, match=r"model\.sparse_products: found always, expected auto"):
        dataclasses.replace(SMALL_MODEL, sparse_products="always", kernels="pallas")
