import itertools
import signal

import jax
import numpy as np
import pytest
from etils import epath

from bertjax.config import AdaptiveConfig, MeshConfig
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.training import checkpoint
from bertjax.training import step as steps
from bertjax.training.batch_source import BatchSource
from bertjax.training.integrity.restoring import restore_state, saved_shapes
from bertjax.training.loop import train
from bertjax.training.pretraining import pretraining
from tests.factory import random_batch, small_config
from tests.training.phases.phased import LEFT_OUT, VOCABULARY


def config_of(**changes):
    return small_config(
        adaptive=AdaptiveConfig(masks="hard", every_steps=2),
        data={
            "dynamic_masking": True, "masking": "token", "max_predictions_per_seq": 8,
            "sentence_objective": "none", "mlm_probability": 0.3,
        },
        model={"heads": ("mlm",)},
        **changes,
    )  # fmt: skip


def rows_of(step):
    batch = random_batch(np.random.default_rng(step), 8)
    # One piece that is everywhere, so that it is soon predicted rightly.
    batch["input_ids"] = np.where(batch["input_ids"] % 3 == 0, 7, batch["input_ids"])
    batch["input_ids"] *= batch["input_mask"]
    return {name: values for name, values in batch.items() if name not in LEFT_OUT}


def source(stop_at=None):
    def batches(start, rows):
        for step in itertools.count(start):
            if step == stop_at:
                signal.raise_signal(signal.SIGTERM)
            yield {name: values[rows] for name, values in rows_of(step).items()}

    return BatchSource(train=batches, vocabulary=VOCABULARY)


def states_of(config, count):
    """The states after each of the first steps, on the mesh of the configuration."""
    devices = int(
        np.prod([getattr(config.mesh, each) for each in config.mesh.__dataclass_fields__])
    )
    mesh = make_mesh(config.mesh, jax.devices()[:devices])
    objective = pretraining(config, VOCABULARY)
    state = steps.jit_init(config, mesh, objective).state()
    step = steps.jit_train_step(config, mesh, objective)
    states = [jax.device_get(state)]
    for number in range(count):
        state, metrics = step(state, global_batch(mesh, rows_of(number), 8))
        states.append((jax.device_get(state), jax.device_get(metrics)))
    return states


@pytest.fixture(scope="module")
def alone():
    return states_of(config_of(mesh=MeshConfig(data=1)), 4)


def test_weights_change_by_the_counts_of_the_steps_before(alone):
    first, (one, _), (two, _), (three, metrics), (four, _) = alone
    assert np.all(first.scores.weights == 1)
    assert np.all(one.scores.weights == 1)
    seen = one.scores.seen
    assert seen.sum() > 8
    assert np.all(one.scores.right <= seen)
    assert np.all(seen[:5] == 0)
    # After two steps: what was missed weighs more.
    assert two.scores.seen.sum() == 0
    assert np.array_equal(two.scores.weights, three.scores.weights)
    assert three.scores.weights.min() < three.scores.weights.max()
    assert not np.array_equal(four.scores.weights, three.scores.weights)
    # The accuracy of the metrics is that of the counts.
    share = three.scores.right.sum() / three.scores.seen.sum()
    assert metrics["mlm_accuracy"] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("mesh", [
    MeshConfig(data=2, fsdp=2, tensor=2),
    pytest.param(MeshConfig(data=8), marks=pytest.mark.slow),
    pytest.param(MeshConfig(data=1, sequence=8), marks=pytest.mark.slow),
], ids=str)  # fmt: skip
def test_every_mesh_has_the_same_scores_and_so_the_same_masks(alone, mesh):
    for (state, metrics), (other, expected) in zip(
        states_of(config_of(mesh=mesh), 4)[1:], alone[1:], strict=True
    ):
        for name, values in state.scores._asdict().items():
            assert np.array_equal(values, getattr(other.scores, name)), name
        assert metrics["loss"] == pytest.approx(expected["loss"], abs=1e-5)


@pytest.mark.slow
def test_accumulation_counts_all_parts(alone):
    parts = config_of(train={"gradient_accumulation_steps": 4}, mesh=MeshConfig(data=1))
    for (state, _), (other, _) in zip(states_of(parts, 4)[1:], alone[1:], strict=True):
        assert np.array_equal(state.scores.weights, other.scores.weights)


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_with_its_scores_to_the_bit(tmp_path):
    config = config_of(mesh=MeshConfig(data=-1), train={"steps": 5, "eval_every_steps": 9})
    whole, stopped = epath.Path(tmp_path) / "whole", epath.Path(tmp_path) / "stopped"
    train(config, whole, source())
    # Between two updates of the weights, so that counts are half done.
    assert train(config, stopped, source(stop_at=2)).step == 3
    folder = checkpoint.newest_checkpoint(stopped)
    names = {name for name in saved_shapes(folder) if name.startswith("scores")}
    assert names == {"scores/weights", "scores/right", "scores/seen"}
    train(config, stopped, source())
    target = steps.abstract_state(config, make_mesh(config.mesh), pretraining(config, VOCABULARY))
    ends = [restore_state(checkpoint.newest_checkpoint(run), target) for run in (whole, stopped)]
    for x, y in zip(*map(jax.tree.leaves, ends), strict=True):
        assert np.array_equal(x, y)
    assert ends[0].scores.weights.min() < ends[0].scores.weights.max()
