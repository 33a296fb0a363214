"""What a student can be measured on, told before it is trained."""

import dataclasses

import jax
import pytest
from etils import epath

import bertjax
from bertjax.compression.card import CARD
from bertjax.compression.distilled_run import check_measurable, student_card
from bertjax.compression.gate import BoundError
from bertjax.compression.measured_run import RunMeasuring
from bertjax.config import Config
from bertjax.errors import UserError
from bertjax.finetuning.load import load_finetuned
from bertjax.model.functional import TASKS
from bertjax.training import checkpoint
from bertjax.training.saved_model import save_model
from tests.compression.small_runs import task_run


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A fine-tuned run."""
    return task_run(tmp_path_factory.mktemp("teacher"))


def save_with_head(run, folder, factor, teacher=""):
    """Save a run's model with its task's head times a factor, as a student of `teacher`."""
    loaded = load_finetuned(run)
    heads = jax.tree.map(lambda leaf: factor * leaf, loaded.params[TASKS])
    facts = {TASKS: checkpoint.read_meta(loaded.checkpoint)[TASKS]}
    config = loaded.config.replace(distill={"teacher": teacher})
    return save_model(folder, config, {**loaded.params, TASKS: heads}, loaded.tokenizer, facts)


@pytest.fixture
def config(teacher):
    return Config().replace(distill={"teacher": str(teacher)})


def test_masked_words_are_a_figure_only_where_a_term_trains_their_head(config):
    without = config.replace(
        distill={"objective_weight": 0.0, "soft_weight": 0.0, "cosine_weight": 1.0}
    )
    assert "without a head for masked words" in check_measurable(without, RunMeasuring())
    with pytest.raises(UserError, match="expected --sts with a file of rated pairs"):
        check_measurable(without, RunMeasuring(max_loss="1%"))


def test_the_task_of_a_student_of_several_tasks_is_named(config):
    two = config.replace(finetune={"tasks": ("a=x", "b:regression=y")})
    assert "found none, expected one of a, b" in check_measurable(two, RunMeasuring())
    assert check_measurable(two, RunMeasuring(task="b")) == ""
    with pytest.raises(UserError, match="--task: found c, expected one of a, b"):
        check_measurable(two, RunMeasuring(task="c"))
    with pytest.raises(UserError, match="--sts: found tasks"):
        check_measurable(two, RunMeasuring(task="b", sts="pairs.tsv"))


@pytest.mark.slow
def test_a_student_out_of_bounds_keeps_its_run_and_has_no_card(teacher, tmp_path):
    """The card of an earlier, looser measurement is taken away too."""
    # Of a head and its negative, one is right where the other one is wrong.
    is_better = bertjax.evaluate(teacher).metrics["accuracy"] > 0.5
    save_with_head(teacher, tmp_path / "better", 1.0 if is_better else -1.0)
    student = save_with_head(
        teacher, tmp_path / "student", -1.0 if is_better else 1.0, str(tmp_path / "better")
    )
    asked = RunMeasuring(seconds=0)
    student_card(student, asked)
    assert (epath.Path(tmp_path) / "student" / CARD).exists()
    with pytest.raises(BoundError, match="^distilled: accuracy"):
        student_card(student, dataclasses.replace(asked, max_loss="1%"))
    assert student.exists()
    assert not (epath.Path(tmp_path) / "student" / CARD).exists()
