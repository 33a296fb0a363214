"""Loading of a fine-tuned model together with the linear head of one of its tasks."""

import dataclasses
import logging

from etils import epath

from bertjax.errors import check
from bertjax.interop.checkpoints.families.family import TASK_HEAD
from bertjax.interop.checkpoints.tensor_mapping import without_groups
from bertjax.model.functional import TASKS
from bertjax.tasks import registry
from bertjax.tasks.task_head import TaskHead
from bertjax.training import checkpoint
from bertjax.training.saved_model import Network, TrainedModel, load_model, load_network

log = logging.getLogger("bertjax")


def load_with_head(
    path: epath.PathLike, task: str = "", network: Network = "model"
) -> tuple[TrainedModel, TaskHead | None]:
    """Load a run's checkpoint like `load_network`, with the head of `task` at `params[TASK_HEAD]`.

    By default the task is the only one of the model. The head is None for a model that was not
    fine-tuned, and for a task that has a decoder instead of a linear head. Raises `UserError` for a
    task that the model was not trained on, and if no task is given and the model has several.
    """
    _, folder = checkpoint.find_checkpoint(path)
    tasks = {values["name"]: values for values in checkpoint.read_meta(folder).get("tasks") or ()}
    if not tasks:
        check(not task, where="task", found=task, expected="none: the model was not fine-tuned")
        return load_network(folder, network), None
    check(
        network == "model",
        where=f"{folder}: network",
        found=network,
        expected="model: a fine-tuned model has no generator",
    )
    if not task and len(tasks) == 1:
        task = next(iter(tasks))
    check(task in tasks, where="task", found=task or "none", expected=f"one of {', '.join(tasks)}")
    opened = registry.from_plain(tasks[task], f"{folder}/meta")
    head = registry.kind_of(opened).task_head(opened)
    if head is None:
        log.warning("task %s: its decoder is left out, the encoder alone is exported", task)
        return load_model(folder), None
    model = load_model(folder, heads={task: head.outputs})
    params = without_groups(model.params, [TASKS])
    # The head has the same name for every task, so that formats need not know the task's name.
    params[TASK_HEAD] = model.params[TASKS][task]
    return dataclasses.replace(model, params=params), head
