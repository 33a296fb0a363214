import dataclasses
import json
import math

import jax
import pytest
from etils import epath

from bertjax.config import MeshConfig
from bertjax.errors import UserError
from bertjax.estimate.answers import Answer, answer, to_json, write_answer
from bertjax.estimate.estimate import estimate
from bertjax.estimate.search import with_batch
from bertjax.estimate.text import describe, describe_answer
from bertjax.model import functional
from bertjax.report.estimate import estimate_html
from bertjax.training.pretraining import pretraining
from tests.factory import small_config
from tests.training.replaced.models import detection_config


def on_four_chips(**changes):
    return small_config(
        **{
            "train": {"batch_size": 16},
            "mesh": {"data": -1, "fsdp": 2},
            "model": {"num_hidden_layers": 3},
        }
        | changes
    )


@pytest.fixture(scope="module")
def compiled(slice_2x2):
    return estimate(on_four_chips(), slice_2x2)


def test_a_step_that_fits_has_a_time_and_a_utilization(compiled):
    assert compiled.fits
    assert compiled.timing.step > 0
    flops = compiled.model_flops.total / (compiled.timing.step * compiled.chips * 197e12)
    assert compiled.mfu == pytest.approx(flops)
    assert 0 < compiled.mfu < 1
    assert compiled.tokens_per_second == pytest.approx(16 * 16 / compiled.timing.step)
    assert compiled.mesh == {"replica": 1, "data": 2, "fsdp": 2, "tensor": 1, "sequence": 1}
    assert compiled.timing.unknown_loops == ()


def test_the_parts_of_the_time_add_up(compiled):
    timing = compiled.timing
    parts = timing.compute + timing.kernels + timing.collectives + timing.unestimated
    assert timing.step == pytest.approx(parts)
    assert timing.collectives == pytest.approx(
        sum(c.seconds for c in compiled.collectives if not c.overlapped)
    )


def test_the_layers_run_as_often_as_there_are_layers(compiled):
    assert {cost.times for cost in compiled.schedule.costs} == {1, 3}


def test_the_memory_adds_up(compiled):
    memory = compiled.memory
    parameters = sum(
        math.prod(x.shape) * 4 for x in jax.tree.leaves(functional.shapes(on_four_chips().model))
    )
    assert (
        parameters / 2 <= memory.parameters < 0.7 * parameters
    )  # of two parts one, but norms and biases whole
    assert (
        memory.optimizer == 2 * memory.parameters + 4 * 2
    )  # two moments; the step and the optimizer's count
    assert memory.batch == 4 * 16 // 4 * (3 * 16 + 3 * 4 + 1)
    named = (
        memory.parameters,
        memory.optimizer,
        memory.batch,
        memory.activations,
        memory.code,
        memory.padding,
    )
    assert memory.total == sum(named)
    assert all(part >= 0 for part in named)


def test_gradients_are_summed_and_cut_parameters_gathered(compiled):
    axes = {
        kind: {c.axes for c in compiled.collectives if c.kind == kind}
        for kind in ("all-gather", "all-reduce")
    }
    assert axes["all-gather"] == {("fsdp",)}
    assert ("data", "fsdp") in axes["all-reduce"]
    summed = sum(c.bytes * c.times for c in compiled.collectives if "data" in c.axes)
    assert summed >= compiled.memory.parameters / 2  # bfloat16 at least


def test_the_most_expensive_operations_come_first_and_are_no_more_than_all(compiled):
    shares = [operation.share for operation in compiled.operations]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1
    assert compiled.operations[0].seconds == pytest.approx(
        compiled.operations[0].share * compiled.timing.step
    )


def test_the_program_does_the_products_of_the_model(compiled):
    # No product of this model is computed twice, none is left out.
    assert compiled.program_flops == pytest.approx(compiled.model_flops.total, rel=0.02)


def test_an_answer_is_written_whole_and_printed_with_its_label(compiled, tmp_path):
    path = write_answer(epath.Path(tmp_path / "new"), Answer(compiled))
    written = json.loads(path.read_text())
    assert written["estimate"]["mfu"] == compiled.mfu
    assert written["estimate"]["memory"]["parameters"] == compiled.memory.parameters
    assert written["estimate"] == json.loads(json.dumps(to_json(compiled)))
    assert "schedule" not in written["estimate"]
    assert "estimate" in written["note"]
    assert "nothing of it measured" in describe(compiled)


@pytest.mark.slow
def test_a_step_that_is_too_large_says_that_it_does_not_fit(slice_2x2):
    huge = estimate(on_four_chips(train={"batch_size": 2**22}), slice_2x2)
    assert not huge.fits
    assert huge.timing is None
    assert "available HBM (15.75G)" in huge.refusal
    assert "does not fit: Ran out of memory" in describe(huge)


def test_a_batch_that_the_mesh_does_not_divide_is_the_users_mistake(slice_2x2):
    with pytest.raises(UserError, match=r"train.batch_size: found 18, expected a multiple .*\(4\)"):
        estimate(on_four_chips(train={"batch_size": 18}), slice_2x2)


@pytest.mark.slow
def test_a_search_ranks_what_fits_by_time_and_a_bisection_ends_at_the_memory(slice_2x2):
    config = on_four_chips(
        model={
            "hidden_size": 128,
            "num_attention_heads": 2,
            "intermediate_size": 512,
            "max_position_embeddings": 512,
        },
        data={"max_seq_length": 512, "max_predictions_per_seq": 80},
        train={"batch_size": 1024},
    )
    purposes = []
    result = answer(
        config,
        slice_2x2,
        largest_batch=True,
        search_limit=3,
        on_estimate=lambda purpose, _: purposes.append(purpose),
    )
    times = [purposes.timing.step for purposes in result.search if purposes.fits]
    assert times == sorted(times)
    assert len({(tuple(t.mesh.items()), t.remat) for t in result.search}) == len(result.search)
    assert len(result.search) in (3, 4)  # three, and what was configured where it is none of them
    assert result.largest.estimate.fits
    assert (
        result.largest.batch_size
        < result.largest.refused
        <= result.largest.batch_size * 17 // 16 + 4
    )
    assert not estimate(with_batch(config, result.largest.refused), slice_2x2).fits
    assert len(purposes) >= 4
    assert "largest batch" in describe_answer(result)


def test_a_mesh_that_does_not_fit_is_the_users_mistake(slice_2x2):
    with pytest.raises(UserError, match="mesh: found .* tensor 3"):
        estimate(dataclasses.replace(on_four_chips(), mesh=MeshConfig(tensor=3)), slice_2x2)


PHASES = (
    "steps=30",
    "steps=10 data.max_seq_length=32 optimizer.peak_learning_rate=1e-3",
    "optimizer.schedule=sqrt",
)


@pytest.mark.slow
def test_each_phase_has_an_estimate_and_phases_with_one_program_are_compiled_once(slice_2x2):
    config = on_four_chips(
        phases=PHASES,
        model={"num_hidden_layers": 1, "max_position_embeddings": 32},
        train={"batch_size": 16, "steps": 50},
    )
    purposes = []
    result = answer(config, slice_2x2, on_estimate=lambda purpose, _: purposes.append(purpose))
    assert purposes == ["phase 1", "phase 2"]
    assert [phase.steps for phase in result.phases] == [30, 10, 10]
    assert [phase.estimate.length for phase in result.phases] == [16, 32, 32]
    assert result.estimate is result.phases[0].estimate
    for phase in result.phases:
        assert phase.seconds == phase.steps * phase.estimate.timing.step
    text = describe_answer(result)
    assert text.startswith("phase 1 of 3\n")
    assert text.count("16 x 32") == 2
    assert "the run: 0.0 h" in text
    shown = estimate_html(json.loads(json.dumps(to_json(result))))
    assert "Phases of the run" in shown


def test_the_largest_batch_of_several_phases_is_no_one_number(slice_2x2):
    config = on_four_chips(phases=("steps=5",), train={"batch_size": 16, "steps": 5})
    with pytest.raises(UserError, match="phases: found 1, expected none, for --largest-batch"):
        answer(config, slice_2x2, largest_batch=True)


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["tied", "disentangled"])
def test_replaced_tokens_are_estimated_with_both_networks(slice_2x2, generator):
    config = detection_config(generator=generator, train={"batch_size": 16})
    config = config.replace(mesh={"data": -1, "fsdp": 2}, data={"dynamic_masking": True})
    found = estimate(config, slice_2x2)
    assert found.fits
    assert 0 < found.mfu < 1
    params = jax.eval_shape(lambda: pretraining(config).init(jax.random.key(0)))
    parameters = sum(4 * math.prod(x.shape) for x in jax.tree.leaves(params))
    assert parameters / 2 <= found.memory.parameters < 0.8 * parameters
