import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config import FinetuneConfig, MeshConfig
from bertjax.config.sparsity import Pattern
from bertjax.finetuning.objective import TaskObjective
from bertjax.parallel import rules
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.training import step as steps
from bertjax.training.optimization import sparsity
from tests.factory import random_batch, small_config

# Few values, so that many magnitudes are equal; -0.0 is the smallest, as 0.0 is.
TIED = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1e-40, 3e38])
ANY = st.floats(-2, 2, width=32)
UP = (jax.tree_util.DictKey("mlp"), jax.tree_util.DictKey("up"), jax.tree_util.DictKey("kernel"))
OUTPUT = (UP[0], jax.tree_util.DictKey("output"), UP[2])
cut = jax.jit(sparsity.without_smallest)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_smallest_of_each_kernel_are_zero_and_of_equal_ones_the_first(data):
    values = data.draw(st.lists(st.one_of(TIED, ANY), min_size=24, max_size=24))
    count = data.draw(st.integers(0, 12))
    kernels = np.array(values, np.float32).reshape(2, 4, 3)
    found = np.asarray(cut(kernels, count))
    for kernel, result in zip(kernels, found, strict=True):
        expected = kernel.reshape(-1).copy()
        expected[np.argsort(np.abs(expected), kind="stable")[:count]] = 0
        assert np.array_equal(result.reshape(-1), expected)


def test_as_many_are_zero_as_were_asked_for_in_a_kernel_of_a_million_weights():
    kernels = np.random.default_rng(0).normal(size=(1, 1000, 1000)).astype(np.float32)
    assert np.sum(np.asarray(cut(kernels, 987_654)) == 0) == 987_654


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_each_group_of_m_inputs_keeps_its_n_largest_weights(data):
    group = data.draw(st.sampled_from([2, 4, 8]))
    kept = data.draw(st.integers(1, group - 1))
    values = data.draw(st.lists(st.one_of(TIED, ANY), min_size=48, max_size=48))
    kernels = np.array(values, np.float32).reshape(1, 16, 3)
    found = np.asarray(sparsity.of_pattern(UP, jnp.asarray(kernels), Pattern(kept, group)))
    for output in range(3):
        for begin in range(0, 16, group):
            weights = kernels[0, begin : begin + group, output]
            expected = weights.copy()
            expected[np.argsort(np.abs(weights), kind="stable")[: group - kept]] = 0
            assert np.array_equal(found[0, begin : begin + group, output], expected)


def test_inputs_of_attentions_output_are_all_heads_side_by_side():
    kernels = jnp.arange(1.0, 49).reshape(1, 2, 3, 8)
    found = np.asarray(sparsity.of_pattern(OUTPUT, kernels, Pattern(2, 6)))
    assert np.sum(found[0] != 0, axis=(0, 1)).tolist() == [2] * 8
    # Both are of the second head: groups of 3 would have kept some of the first.
    assert not found[0, 0].any()


def sparse_config(**finetune):
    options = FinetuneConfig(tasks=("good=data",), max_seq_length=16, length_buckets=(), **finetune)
    return small_config(finetune=options, train={"steps": 40}, optimizer={"warmup_steps": 0})


def test_the_share_rises_by_the_cubic_schedule_and_ends_at_the_whole_share():
    config = sparse_config(
        sparsity=0.8, sparsity_begin=0.25, sparsity_end=0.85, sparsity_interval=7
    )
    schedule = sparsity.sparsity_schedule(config)
    assert schedule == (10, 34, 7)
    # 10, 17, 24, 31 and, although 38 would be next, 34.
    expected = [0.8 * (1 - (1 - over / 24) ** 3) for over in (0, 7, 14, 21, 24)]
    found = [sparsity.share_at(config, stage) for stage in range(schedule.stages + 1)]
    assert found == pytest.approx(expected)
    assert found[-1] == 0.8
    reached = [step for step in range(41) if sparsity.is_reached(config, step)]
    assert reached == list(range(34, 41))


def test_a_schedule_of_no_length_ends_with_the_first_update():
    config = sparse_config(sparsity=0.5, sparsity_begin=0.0, sparsity_end=0.0)
    assert sparsity.sparsity_schedule(config)[:2] == (0, 1)
    assert sparsity.share_at(config, 1) == 0.5
    assert sparsity.is_reached(small_config(), 0)


OBJECTIVE = TaskObjective(small_config().model, (SingleLabel("good", ("no", "yes")),))


def task_batch():
    batch = random_batch(np.random.default_rng(0), 8)
    rows = {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
    labels = np.arange(8, dtype=np.int32) % 2
    return rows | {"good/labels": labels, "good/item_weights": np.ones(8, np.float32)}


@functools.lru_cache
def trained(config, count):
    """States before and after each of `count` steps, and the metrics of each."""
    mesh = make_mesh(config.mesh, jax.devices()[: config.mesh.data * config.mesh.fsdp])
    shardings = steps.state_shardings(config, mesh, OBJECTIVE)
    state = jax.jit(lambda: steps.init_state(config, OBJECTIVE), out_shardings=shardings)()
    step = steps.jit_train_step(config, mesh, OBJECTIVE)
    states, metrics = [jax.device_get(state)], []
    for _ in range(count):
        state, values = step(state, global_batch(mesh, task_batch(), 8))
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(values))
    return states, metrics


EARLY = sparse_config(sparsity=0.75, sparsity_begin=0.05, sparsity_end=0.15, sparsity_interval=2)
PATTERN = sparse_config(sparsity_pattern="1:4", sparsity_begin=0.05)


def layer_zeros(params):
    """The number of zeros in each layer of each kernel, by the kernel's path."""
    kernels = sparsity.kernels_of(params)
    return {
        jax.tree_util.keystr(path): np.sum(stack.reshape(len(stack), -1) == 0, axis=1).tolist()
        for path, stack in kernels.items()
    }


def test_layers_have_the_share_of_each_step_and_nothing_else_has_zeros():
    states, metrics = trained(EARLY, 8)
    # Begins after 2 updates: stages after 4 and 6, of which the first is half of the way.
    shares = [0] * 4 + [0.75 * (1 - 0.5**3)] * 2 + [0.75] * 3
    for state, share in zip(states, shares, strict=True):
        for path, stack in sparsity.kernels_of(state.params).items():
            size = stack[0].size
            zeros = layer_zeros(state.params)[jax.tree_util.keystr(path)]
            assert zeros == [round(share * size)] * 2, (path, share)
    assert [m["sparsity"] for m in metrics] == pytest.approx(shares[1:], abs=1e-3)
    names = list(layer_zeros(states[0].params))
    assert len(names) == 6
    assert all(name.startswith("['encoder']['layers']") for name in names)
    last = states[-1].params
    for group in ("embeddings", "pooler", "tasks"):
        for before, after in zip(
            jax.tree.leaves(states[0].params[group]), jax.tree.leaves(last[group]), strict=True
        ):
            assert np.sum(after == 0) <= np.sum(before == 0)
    assert sparsity.check_zeros(EARLY, last) == pytest.approx(0.75)


def test_a_weight_that_is_zero_stays_zero_and_adds_nothing_to_the_gradient():
    states, _metrics = trained(EARLY, 8)
    for before, after in itertools.pairwise(states[4:]):
        for path, old in sparsity.kernels_of(before.params).items():
            new = sparsity.kernels_of(after.params)[path]
            assert not new[old == 0].any()
            assert (new[(old != 0) & (new != 0)] != old[(old != 0) & (new != 0)]).any()
    stopped = sparsity.stop_zeros(EARLY, states[-1].params, jnp.int32(8))
    kernel = states[-1].params["encoder"]["layers"]["mlp"]["up"]["kernel"]
    assert np.array_equal(stopped["encoder"]["layers"]["mlp"]["up"]["kernel"], kernel)

    def loss(params):
        params = sparsity.stop_zeros(EARLY, params, jnp.int32(8))
        return jnp.sum(params["encoder"]["layers"]["mlp"]["up"]["kernel"])

    gradient = jax.grad(loss)(states[-1].params)["encoder"]["layers"]["mlp"]["up"]["kernel"]
    assert np.array_equal(gradient != 0, kernel != 0)


def test_a_pattern_is_set_at_its_step_at_once_and_stays():
    states, metrics = trained(PATTERN, 5)
    assert [float(m["sparsity"]) for m in metrics] == [0, 0.75, 0.75, 0.75, 0.75]
    first, last = states[2].params, states[-1].params
    for path, kernels in sparsity.kernels_of(last).items():
        left = np.sum(np.asarray(sparsity.groups_of(path, kernels, 4)) != 0, axis=2)
        assert (left == 1).all()
        assert np.array_equal(kernels == 0, sparsity.kernels_of(first)[path] == 0)
    assert sparsity.check_zeros(PATTERN, last) == 0.75


BOTH = pytest.mark.parametrize("config", [EARLY, PATTERN], ids=["share", "pattern"])


@BOTH
def test_eight_devices_that_share_a_kernel_set_the_same_zeros_as_one(config):
    dense = jax.device_get(jax.jit(lambda: steps.init_state(config, OBJECTIVE))()).params
    step = jnp.int32(sparsity.sparsity_schedule(config).end - 1)
    program = jax.jit(lambda params: sparsity.sparsified(config, params, params, step))
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2, sequence=2), jax.devices()[:8])
    shardings = rules.tree_shardings(mesh, OBJECTIVE.logical_axes())
    alone, shared = program(dense), program(jax.device_put(dense, shardings))
    assert sparsity.check_zeros(config, alone) == pytest.approx(0.75, abs=1e-3)
    for one, eight in zip(jax.tree.leaves(alone), jax.tree.leaves(shared), strict=True):
        assert np.array_equal(one, eight)


@pytest.mark.slow
@BOTH
def test_eight_devices_train_as_one(config):
    states, metrics = trained(config, 8)
    many = dataclasses.replace(config, mesh=MeshConfig(data=2, fsdp=4))
    other_states, other_metrics = trained(many, 8)
    shares = [float(m["sparsity"]) for m in metrics]
    assert [float(m["sparsity"]) for m in other_metrics] == shares
    one, eight = (jax.tree.leaves(each[-1].params) for each in (states, other_states))
    for a, b in zip(one, eight, strict=True):
        assert np.allclose(a, b, atol=2e-4)


def test_a_stage_is_not_lost_where_its_update_is_skipped():
    state = trained(EARLY, 8)[0][5]
    broken = jax.tree.map(lambda leaf: leaf, state.params)
    broken["embeddings"]["word"]["embedding"] = np.full_like(
        broken["embeddings"]["word"]["embedding"], np.nan
    )
    program = jax.jit(
        lambda s: steps.train_step(EARLY, s, task_batch(), OBJECTIVE), donate_argnums=()
    )
    after, metrics = program(state._replace(params=broken))
    assert metrics["skipped"] == 1
    assert metrics["sparsity"] == pytest.approx(0.75, abs=1e-3)
    assert int(after.step) == 6


def test_too_few_zeros_are_told():
    params = trained(EARLY, 8)[0][4].params
    for config in (EARLY, PATTERN):
        with pytest.raises(RuntimeError, match="fewer zeros than were asked for"):
            sparsity.check_zeros(config, params)
