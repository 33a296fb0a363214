"""The head of a fine-tuned model, as its checkpoint has it."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from bertjax.errors import check
from bertjax.interop.checkpoints.tensor_names import TASK_HEAD
from bertjax.model.functional import TASKS
from bertjax.training import checkpoint
from bertjax.training.saved_model import TrainedModel, load_model

ON_TOKENS = {"classification": False, "choice": False, "tagging": True, "spans": True}

log = logging.getLogger("bertjax")


@dataclass(frozen=True)
class TaskHead:
    """What the outputs of a linear head are."""

    task: str
    kind: str
    """classification, choice (a number for each ending), tagging or spans."""
    labels: tuple[str, ...]
    """Of each output; none where it is one number."""
    label_type: str = "class"
    """class (softmax), classes (a sigmoid each) or number."""

    @property
    def outputs(self) -> int:
        return len(self.labels) or 1

    @property
    def on_tokens(self) -> bool:
        """Whether it is on every token, else on the sentence vector."""
        return ON_TOKENS[self.kind]


def load_with_head(path: epath.PathLike, task: str = "") -> tuple[TrainedModel, TaskHead | None]:
    """A run's checkpoint as `load_model` has it, with the head of `task` at `params[TASK_HEAD]`.

    The task is by default the only one. There is None for the head of a model that was not
    fine-tuned, and of a task that has a decoder instead. Raises `UserError` for a task that the
    model was not trained on, or none said where there are several.
    """
    _, folder = checkpoint.find(path)
    tasks = {values["name"]: values for values in checkpoint.read_meta(folder).get("tasks") or ()}
    if not tasks:
        check(not task, where="task", found=task, expected="none: the model was not fine-tuned")
        return load_model(folder), None
    if not task and len(tasks) == 1:
        (task,) = tasks
    check(task in tasks, where="task", found=task or "none", expected=f"one of {', '.join(tasks)}")
    head = _head(tasks[task])
    if head is None:
        log.warning("task %s: its decoder is left out, the encoder alone is exported", task)
        return load_model(folder), None
    model = load_model(folder, heads={task: head.outputs})
    params = {group: leaves for group, leaves in model.params.items() if group != TASKS}
    params[TASK_HEAD] = model.params[TASKS][task]
    return dataclasses.replace(model, params=params), head


def _head(values: Mapping[str, Any]) -> TaskHead | None:
    """Of a task as a checkpoint's `meta` has it."""
    kind = values["kind"]
    if kind not in ON_TOKENS:
        return None
    labels = ("start", "end") if kind == "spans" else tuple(values.get("labels", ()))
    return TaskHead(
        values["name"],
        kind,
        labels,
        "number" if kind == "choice" else values.get("label_type", "class"),
    )
