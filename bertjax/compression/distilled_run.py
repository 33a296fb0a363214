"""A student that has been distilled, measured beside its teacher."""

from dataclasses import asdict

from etils import epath

from bertjax.compression.card import CARD, write_card
from bertjax.compression.measured_run import (
    Described,
    RunMeasuring,
    check_measuring,
    command_text,
    measured_card,
    opened_measure,
)
from bertjax.compression.rated_pairs import read_pairs
from bertjax.config import Config
from bertjax.config.finetune import task_parts
from bertjax.errors import UserError, check
from bertjax.given_files import place_of
from bertjax.parallel import hosts
from bertjax.storage import read_json
from bertjax.training import checkpoint


def check_measurable(config: Config, asked: RunMeasuring) -> str:
    """Raise `UserError` for a way of measuring that the run of `config` cannot have.

    This is told before the training. Return the reason why the student will not be measured, where
    no bound and no file of pairs asks for it; empty if it will be.
    """
    check_measuring(asked)
    try:
        _check_figure(config, asked)
    except UserError as error:
        if asked.max_loss or asked.sts or asked.task:
            raise
        return str(error)
    return ""


def _check_figure(config: Config, asked: RunMeasuring) -> None:
    check(
        not hosts.is_multiprocess(),
        where="measuring a student",
        found="several processes",
        expected="one process",
    )
    names = [task_parts(entry).name for entry in config.finetune.tasks]
    if names:
        check(not asked.sts, where="--sts", found="tasks", expected="none: the figure is a task's")
        known = asked.task in names or (not asked.task and len(names) == 1)
        expected = f"one of {', '.join(names)}"
        check(known, where="--task", found=asked.task or "none", expected=expected)
        return
    check(not asked.task, where="--task", found=asked.task, expected="none: there are no tasks")
    if asked.sts:
        read_pairs(place_of(asked.sts))
        return
    settings = config.distill
    _, teacher = checkpoint.find_checkpoint(settings.teacher)
    masks_words = settings.objective_weight > 0 or settings.soft_weight > 0
    check(
        masks_words and "mlm" in checkpoint.read_checkpoint_config(teacher).model.heads,
        where="the figure",
        found="a student or a teacher without a head for masked words",
        expected="--sts with a file of rated pairs",
    )
    check(
        config.data.max_sequences_per_row == 1,
        where="the figure",
        found="packed rows",
        expected="one input a row, as exported models read them (or --sts FILE)",
    )


def student_card(student: epath.Path, asked: RunMeasuring) -> list[str]:
    """Measure a run's checkpoint `student` beside its teacher; return the lines of the table.

    The card is written into the run. If it is there already, of the same checkpoint and settings,
    nothing is measured again. Raises `BoundError` if the figure loses more than it may: the run
    stays, because its training may be hours of work, but it has no card.
    """
    config = checkpoint.read_checkpoint_config(student)
    run_dir, _ = checkpoint.find_checkpoint(student)
    _, teacher = checkpoint.find_checkpoint(config.distill.teacher)
    described = _described(run_dir, student, teacher, config)
    if (run_dir / CARD).exists():
        earlier = read_json(run_dir / CARD)
        if earlier["settings"] == {**described.options, **asdict(asked)}:
            return list(earlier["table"])
        # What it says is not so any more.
        (run_dir / CARD).unlink()
    measure = opened_measure(student, asked)
    card = measured_card(teacher, student, run_dir.name, measure, asked, described)
    write_card(run_dir, card)
    return list(card.to_dict()["table"])


def _described(
    run_dir: epath.Path, student: epath.Path, teacher: epath.Path, config: Config
) -> Described:
    model, settings = config.model, asdict(config.distill)
    # The lists of card.json, so that the two can be compared.
    settings["teacher_layers"] = list(config.distill.teacher_layers)
    settings["teacher"] = str(teacher)
    sizes = {
        "num_hidden_layers": model.num_hidden_layers,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
    }
    tasks = ", ".join(config.finetune.tasks)
    text = f"trained on tasks: {tasks}" if tasks else f"trained on {config.data.prepared_dir}"
    command = command_text("bertjax distill", {"teacher": teacher, "run_dir": run_dir})
    return Described(
        command=command,
        options={"step": int(student.name), **sizes, **settings},
        data=(text,),
        notes=(f"{model.num_hidden_layers} layers of width {model.hidden_size}.",),
        tag="distilled",
    )
