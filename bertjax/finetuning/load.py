"""Loading of fine-tuned models from their folders."""

from dataclasses import dataclass
from functools import cached_property

import jax
from etils import epath

from bertjax.config import Config
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.finetuning.objective import TaskObjective
from bertjax.json_values import shown, value_of
from bertjax.model.functional import DISTILLATION, Params
from bertjax.model.sparse.choice import with_sparse_products
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from bertjax.storage import read_json
from bertjax.tasks import registry
from bertjax.tasks.task import Task
from bertjax.training import checkpoint
from bertjax.training.saved_model import for_inference, saved_tokenizer

THRESHOLDS = "null_thresholds"
"""Field of `result.json` with the decision thresholds by task; named after that of SQuAD 2.0."""


@dataclass(frozen=True)
class Finetuned:
    """The parameters of a checkpoint with the heads of its tasks, laid out on `config.mesh`."""

    config: Config
    run_dir: epath.Path
    checkpoint: epath.Path
    objective: TaskObjective
    kinds: dict[str, str]
    """The kind of each task, by the task's name."""
    params: Params

    @cached_property
    def inference_params(self) -> Params:
        """`params`, with kernels in sparse form where this is faster (`model.sparse_products`)."""
        return with_sparse_products(self.config.model, self.params)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run; raises `UserError` if the run has none or another one now."""
        return saved_tokenizer(self.run_dir, self.checkpoint)


def load_finetuned(path: epath.PathLike, config: Config | None = None) -> Finetuned:
    """Load the selected checkpoint of a fine-tuned run, or one checkpoint.

    `path` is the folder of the run or of the checkpoint. `config` replaces the checkpoint's own
    configuration. By default it is the checkpoint's own, changed for the devices of this machine
    (`for_inference`). Raises `UserError` if there is no checkpoint, or it was not fine-tuned.
    """
    run_dir, folder = checkpoint.find_checkpoint(path)
    if config is None:
        config = for_inference(checkpoint.read_checkpoint_config(folder))
    thresholds = thresholds_of(run_dir, folder)
    tasks = []
    for task in read_tasks(folder):
        # An evaluation may ask for other metrics than the run had, or for another rule of them.
        task = registry.with_chosen_metrics(task, config.finetune)
        tasks.append(_with_threshold(task, thresholds))
    objective = TaskObjective(config.model, tuple(tasks))
    # Only shapes are computed: the values of new parameters would be replaced at once.
    shapes = jax.eval_shape(lambda: objective.init(jax.random.key(0)))
    shardings = rules.tree_shardings(make_mesh(config.mesh), objective.logical_axes())
    target = rules.with_shardings(shapes, shardings)
    params = checkpoint.restore_params(folder, target, ignored_groups=(DISTILLATION,))
    kinds = {task.name: registry.kind_of(task).name for task in tasks}
    return Finetuned(config, run_dir, folder, objective, kinds, params)


def read_tasks(folder: epath.Path) -> list[Task]:
    """Return the tasks of a checkpoint folder; raise `UserError` if it was not fine-tuned."""
    saved_tasks = checkpoint.read_meta(folder).get("tasks") or []
    check(
        isinstance(saved_tasks, list),
        where=f"{folder}/meta: tasks",
        found=shown(saved_tasks),
        expected="a list",
    )
    check(
        len(saved_tasks) > 0,
        where=str(folder),
        found="a model without a task",
        expected="one that `bertjax finetune` made",
    )
    return [registry.from_plain(values, f"{folder}/meta") for values in saved_tasks]


def thresholds_of(run_dir: epath.Path, folder: epath.Path) -> dict[str, float] | None:
    """Return the decision thresholds of a checkpoint by task; None if there is no `result.json`.

    The thresholds in `result.json` were chosen for the selected checkpoint. For any other
    checkpoint this returns an empty dictionary.
    """
    path = run_dir / checkpoint.RESULT
    if not path.exists():
        return None
    result = read_json(path)
    # Compared as text: the folder of a checkpoint is named after its step.
    if str(result.get("step")) != folder.name:
        return {}
    return value_of(dict[str, float], result.get(THRESHOLDS, {}), f"{path}: {THRESHOLDS}")


def _with_threshold(task: Task, thresholds: dict[str, float] | None) -> Task:
    if thresholds is None:
        return task
    return registry.kind_of(task).with_threshold(task, thresholds.get(task.name, 0.0))
