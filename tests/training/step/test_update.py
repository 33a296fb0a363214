import dataclasses
import math
import re

import jax
import numpy as np
import pytest

from bertjax.config import MeshConfig
from bertjax.parallel import rules
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.training import step as steps
from bertjax.training.pretraining import pretraining
from tests.factory import random_batch, small_config

MESHES = {
    "one": MeshConfig(data=1),
    "data 8": MeshConfig(data=8),
    "fsdp 8": MeshConfig(data=1, fsdp=8),
    "replica 2, data 2, fsdp 2": MeshConfig(replica=2, data=2, fsdp=2),
    "data 4, tensor 2": MeshConfig(data=4, tensor=2),
    "data 2, fsdp 2, tensor 2": MeshConfig(data=2, fsdp=2, tensor=2),
    "sequence 8": MeshConfig(data=1, sequence=8),
    "fsdp 2, tensor 2, sequence 2": MeshConfig(data=1, fsdp=2, tensor=2, sequence=2),
}
MANY = [name for name in MESHES if name != "one"]


def run(config, batch, count=1):
    """The state and metrics after `count` steps on one batch."""
    mesh = make_mesh(
        config.mesh, jax.devices()[: math.prod(dataclasses.asdict(config.mesh).values())]
    )
    state = jax.jit(
        lambda: steps.init_state(config), out_shardings=steps.state_shardings(config, mesh)
    )()
    step = steps.jit_train_step(config, mesh)
    for _ in range(count):
        state, metrics = step(state, global_batch(mesh, batch, len(batch["input_ids"])))
    return jax.device_get(state), jax.device_get(metrics)


def assert_same(a, b, atol):
    for (path, x), (_, y) in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree_util.tree_leaves_with_path(b), strict=True
    ):
        assert np.allclose(x, y, atol=atol, rtol=1e-4), (path, np.abs(x - y).max())


@pytest.fixture(scope="module")
def batch():
    """Masks and padding spread so unevenly that a mean of means would show."""
    batch = random_batch(np.random.default_rng(0), 8)
    batch["masked_lm_weights"][:4] = 0
    batch["masked_lm_weights"][0, 0] = 1
    batch["masked_lm_weights"][4:] = 1
    return batch


def gradients_of(config, batch):
    params = steps.init_state(config).params
    return jax.jit(lambda p, b: steps.gradients(config, p, b, None)[:2])(params, batch)


@pytest.mark.parametrize(
    "parts",
    [2, pytest.param(4, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)],
)
def test_accumulation_gives_the_gradient_of_the_whole_batch(batch, parts):
    whole = gradients_of(small_config(), batch)
    accumulated = gradients_of(small_config(train={"gradient_accumulation_steps": parts}), batch)
    assert_same(whole, accumulated, atol=1e-6)


def sums_and_gradients(config, batch):
    """The whole batch's sums and the gradient, each on its mesh, with dropout."""
    mesh = make_mesh(
        config.mesh, jax.devices()[: math.prod(dataclasses.asdict(config.mesh).values())]
    )
    layouts = steps.state_shardings(config, mesh)
    params = jax.jit(lambda: steps.init_state(config).params, out_shardings=layouts.params)()
    key = steps.random_key(config.seed, 0, steps.DROPOUT)
    gradient_and_sums = jax.jit(
        lambda params, batch: steps.gradients(config, params, batch, key, rules.MeshLayout(mesh))[
            :2
        ],
        out_shardings=(layouts.params, None),
    )(params, global_batch(mesh, batch, len(batch["input_ids"])))
    return jax.device_get(gradient_and_sums)


@pytest.fixture(scope="module")
def on_one_device(batch):
    by_bits = {}

    def get(bits):
        if bits not in by_bits:
            by_bits[bits] = sums_and_gradients(
                small_config(model=MODEL | {"dropout_bits": bits}), batch
            )
        return by_bits[bits]

    return get


MODEL = {
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "num_attention_heads": 4,
    "z_loss": 0.1,
}


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("data 8", "hash"),
        (MANY[-1], "threefry"),
        # These compile a program each, of the same rules.
        *(pytest.param(name, "threefry", marks=pytest.mark.slow) for name in MANY[:-1]),
        pytest.param(MANY[-1], "hash", marks=pytest.mark.slow),
    ],
)
def test_every_mesh_gives_the_losses_and_gradients_of_one_device(
    largest, on_one_device, batch, name, bits
):
    gradient, sums = on_one_device(bits)
    config = small_config(model=MODEL | {"dropout_bits": bits}, mesh=MESHES[name])
    cut_gradient, cut_sums = sums_and_gradients(config, batch)
    for a, b in zip(sums, cut_sums, strict=True):
        largest(f"losses, {name}", abs(a - b) / max(abs(a), 1), 1e-6)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(cut_gradient), strict=True):
        largest(f"gradients, {name}", np.abs(a - b).max() / max(np.abs(a).max(), 1e-3), 1e-5)


@pytest.mark.parametrize(
    ("bits", "parts", "mesh"),
    [("threefry", 4, "one"), ("threefry", 2, "data 4, tensor 2"), ("hash", 4, "one")],
)
def test_accumulation_has_the_dropout_of_the_whole_batch(
    largest, on_one_device, batch, bits, parts, mesh
):
    gradient, sums = on_one_device(bits)
    config = small_config(
        model=MODEL | {"dropout_bits": bits},
        mesh=MESHES[mesh],
        train={"gradient_accumulation_steps": parts},
    )
    in_parts, sums_in_parts = sums_and_gradients(config, batch)
    for a, b in zip(sums, sums_in_parts, strict=True):
        largest("losses, in parts with dropout", abs(a - b) / max(abs(a), 1), 1e-6)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(in_parts), strict=True):
        difference = np.abs(a - b).max() / max(np.abs(a).max(), 1e-3)
        largest("gradients, in parts with dropout", difference, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [{"data": 4}, {"data": 1, "tensor": 2, "sequence": 4}], ids=str)
def test_noise_on_the_embeddings_is_that_of_the_whole_batch(largest, batch, mesh):
    noisy = {"model": {"embedding_noise": 5.0, "embedding_noise_kind": "gaussian"}}
    wanted, sums = sums_and_gradients(small_config(**noisy), batch)
    cut = small_config(**noisy, mesh=mesh, train={"gradient_accumulation_steps": 2})
    found, cut_sums = sums_and_gradients(cut, batch)
    for a, b in zip(sums, cut_sums, strict=True):
        largest("losses, with noise", abs(a - b) / max(abs(a), 1), 1e-6)
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        difference = np.abs(a - b).max() / max(np.abs(a).max(), 1e-3)
        largest("gradients, with noise", difference, 1e-5)


@pytest.mark.parametrize(
    "name", [pytest.param("fsdp 8", marks=pytest.mark.slow), "fsdp 2, tensor 2, sequence 2"]
)
def test_a_mesh_gives_the_steps_of_one_device(batch, name):
    one = run(small_config(model=MODEL), batch, count=3)
    many = run(small_config(model=MODEL, mesh=MESHES[name]), batch, count=3)
    # Adam divides by the root of tiny second moments, which magnifies rounding.
    assert_same(one, many, atol=2e-4)


@pytest.mark.slow
def test_accumulation_on_two_devices_gives_the_step_of_one(batch):
    one = run(small_config(), batch, count=2)
    two = run(
        small_config(mesh=MeshConfig(data=2), train={"gradient_accumulation_steps": 2}),
        batch,
        count=2,
    )
    assert_same(one[0].params, two[0].params, atol=2e-4)


def collectives(config, mesh):
    """The collective operations in the compiled step, with their counts."""
    shapes = jax.eval_shape(lambda: steps.init_state(config))
    batch = {
        k: jax.ShapeDtypeStruct(v.shape, v.dtype)
        for k, v in random_batch(np.random.default_rng(0), 16).items()
    }
    text = (
        steps.lower_train_step(config, mesh, pretraining(config), shapes, batch).compile().as_text()
    )
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
    return {kind: len(re.findall(rf" {kind}(?:-start)?\(", text)) for kind in kinds}


@pytest.mark.parametrize("parts", [1, 2])
def test_data_parallel_step_moves_nothing_but_sums(parts):
    config = small_config(
        mesh=MeshConfig(data=8), train={"batch_size": 16, "gradient_accumulation_steps": parts}
    )
    counts = collectives(config, make_mesh(MeshConfig(data=8)))
    assert counts["all-reduce"] > 0
    assert {kind: n for kind, n in counts.items() if kind != "all-reduce"} == dict.fromkeys(
        ("all-gather", "reduce-scatter", "collective-permute", "all-to-all"), 0
    )


def test_parameters_and_moments_are_born_cut_as_the_table_says():
    config = small_config(mesh=MESHES["data 2, fsdp 2, tensor 2"])
    mesh = make_mesh(config.mesh)
    state = jax.jit(
        lambda: steps.init_state(config), out_shardings=steps.state_shardings(config, mesh)
    )()
    kernel = state.params["encoder"]["layers"]["mlp"]["up"]["kernel"]
    assert {s.data.shape for s in kernel.addressable_shards} == {(2, 8, 16)}
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == kernel.shape]
    assert len(moments) == 2
    assert all(m.sharding.is_equivalent_to(kernel.sharding, 3) for m in moments)


def test_the_same_seed_and_step_give_the_same_dropout_and_other_steps_others():
    keys = [
        jax.random.key_data(steps.random_key(*a))
        for a in [(0, 1, 1), (0, 1, 1), (0, 2, 1), (1, 1, 1), (0, 1, 0)]
    ]
    assert np.array_equal(keys[0], keys[1])
    assert len({k.tobytes() for k in map(np.asarray, keys)}) == 4


def test_a_loss_that_is_not_finite_skips_the_update_and_counts_it(batch):
    config = small_config()
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    broken = steps.init_state(config)
    table = (
        broken.params["embeddings"]["word"]["embedding"]
        .at[int(batch["input_ids"][0, 0])]
        .set(np.nan)
    )
    broken.params["embeddings"]["word"]["embedding"] = table
    before = jax.device_get(broken)
    layouts = steps.state_shardings(config, mesh)
    state, metrics = steps.jit_train_step(config, mesh)(
        jax.device_put(broken, layouts), global_batch(mesh, batch, 8)
    )
    assert float(metrics["skipped"]) == 1.0
    assert int(state.step) == 1
    for a, b in zip(
        jax.tree.leaves(before[1:]), jax.tree.leaves(jax.device_get(state)[1:]), strict=True
    ):
        assert np.array_equal(a, b, equal_nan=True)


@pytest.mark.quick
def test_training_on_one_batch_learns_it():
    batch = random_batch(np.random.default_rng(4), 8)
    _, first = run(small_config(train={"steps": 60}), batch, 1)
    _, last = run(small_config(train={"steps": 60}), batch, 60)
    assert last["mlm_loss"] < 0.3 * first["mlm_loss"]


def test_metrics_say_what_the_step_did(batch):
    _, metrics = run(small_config(), batch, 2)
    assert float(metrics["learning_rate"]) == pytest.approx(1e-2 / 2)
    assert float(metrics["tokens"]) == batch["input_mask"].sum()
    assert float(metrics["skipped"]) == 0
    assert rules.batch_parts(make_mesh(MESHES["data 8"])) == 8
