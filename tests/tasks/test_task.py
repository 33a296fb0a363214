"""Every kind of task does what `Task` says."""

import inspect

import jax
import numpy as np
import pytest

from bertjax.tasks.metric_table import Scale
from bertjax.tasks.registry import KINDS
from bertjax.tasks.task import EncodedExamples, LinearHeadTask, Task, TaskModel, TaughtTask
from tests.tasks.test_registry import TASKS
from tests.tasks.tiny import MODEL


def members_of(*protocols):
    every = {name: member for each in protocols for name, member in vars(each).items()}
    return {name: member for name, member in every.items() if not name.startswith("_")}


OF_EACH = members_of(TaskModel, Task)
TAUGHT = members_of(TaughtTask)
"""What each kind with labels has besides, so that a student can learn it from a teacher."""


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_has_all_that_a_task_has_with_the_same_arguments(name):
    task = TASKS[name]
    is_taught = name != "seq2seq"
    assert isinstance(task, TaughtTask) == is_taught
    for member, expected in {**OF_EACH, **(TAUGHT if is_taught else {})}.items():
        assert hasattr(task, member), member
        if callable(expected):
            result = list(inspect.signature(getattr(task, member)).parameters)
            assert result == list(inspect.signature(expected).parameters)[1:], member
    assert isinstance(task.metric, str)
    assert (task.metric_scale, task.per_token, task.generates) == {
        "classification": (Scale.SHARE, False, False),
        "tagging": (Scale.SHARE, True, False),
        "spans": (Scale.PERCENT, True, False),
        "choice": (Scale.SHARE, False, False),
        "seq2seq": (Scale.POINTS, False, True),
    }[name]


@pytest.mark.parametrize("name", KINDS)
def test_each_kinds_head_has_axes_for_each_parameter(name):
    task = TASKS[name]
    head = jax.eval_shape(lambda: task.init_head(MODEL, jax.random.key(0)))
    axes = task.head_axes(MODEL)
    leaf = lambda one: not isinstance(one, dict)  # noqa: E731
    assert jax.tree.structure(head) == jax.tree.structure(axes, is_leaf=leaf)
    for shape, names in zip(
        jax.tree.leaves(head), jax.tree.leaves(axes, is_leaf=leaf), strict=True
    ):
        assert len(names) <= len(shape.shape)


def test_a_linear_head_begins_new_and_generates_nothing():
    task, new = TASKS["choice"], {"kernel": np.zeros(3)}
    assert isinstance(task, LinearHeadTask)
    assert task.initial_params(MODEL, new, {"tasks": {"t": {"kernel": np.ones(3)}}}) is new
    with pytest.raises(TypeError, match="no task that generates"):
        task.generate(MODEL, {}, {}, layout=None)


def test_items_are_counted_by_their_examples():
    rows = EncodedExamples(
        np.zeros(6, np.int32), np.arange(7), np.ones(6, np.int32), np.array([0, 0, 1]), choices=2
    )
    assert rows.items == 3
