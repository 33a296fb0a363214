"""Fine-tuned models in their folders."""

import dataclasses
from typing import Any, NamedTuple

import jax
from etils import epath

from bertjax.config import Config
from bertjax.errors import check
from bertjax.finetuning.objective import TaskObjective
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from bertjax.storage import read_json
from bertjax.tasks import registry as kinds
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.task import Task
from bertjax.training import checkpoint
from bertjax.training.saved_model import on_devices_here


class Finetuned(NamedTuple):
    """A checkpoint's parameters with the heads of its tasks, laid out on `config.mesh`, and where
    they came from.
    """

    config: Config
    run_dir: epath.Path
    checkpoint: epath.Path
    objective: TaskObjective
    kinds: dict[str, str]
    """The kind of each task."""
    params: Any


def load_finetuned(path: epath.PathLike, config: Config | None = None) -> Finetuned:
    """Load a fine-tuned run's chosen checkpoint, or one checkpoint, with the heads of its tasks.

    `config` takes the place of the checkpoint's own configuration, which by default is used with
    the devices of this machine (`on_devices_here`). Raises `UserError` where there is none, or it was not fine-tuned.
    """
    run_dir, folder = checkpoint.find(path)
    if config is None:
        config = on_devices_here(checkpoint.read_config(folder))
    plain = checkpoint.read_meta(folder).get("tasks") or []
    check(
        len(plain) > 0,
        where=str(folder),
        found="a model without a task",
        expected="one that `bertjax finetune` made",
    )
    opened = [kinds.from_plain(values, f"{folder}/meta") for values in plain]
    found = [(kind, _with_threshold(task, run_dir, folder)) for kind, task in opened]
    objective = TaskObjective(config.model, tuple(task for _, task in found))
    shapes = jax.eval_shape(lambda: objective.init(jax.random.key(0)))
    target = rules.laid_out(
        shapes, rules.tree_shardings(make_mesh(config.mesh), objective.logical_axes())
    )
    params = checkpoint.restore_params(folder, target)
    return Finetuned(
        config, run_dir, folder, objective, {task.name: kind for kind, task in found}, params
    )


def _with_threshold(task: Task, run_dir: epath.Path, folder: epath.Path) -> Task:
    """A task of spans with the null threshold that was chosen for this checkpoint; 0 where none
    was.
    """
    path = run_dir / checkpoint.RESULT
    if not isinstance(task, Spans) or not path.exists():
        return task
    result = read_json(path)
    chosen = result.get("null_thresholds", {}) if str(result.get("step")) == folder.name else {}
    return dataclasses.replace(task, null_threshold=chosen.get(task.name, 0.0))
