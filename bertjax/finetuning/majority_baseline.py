"""What a model gets that says the same of everything: runs that do no better have failed."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertjax.tasks.classification.task import Classification, TextPrediction
from bertjax.tasks.multiple_choice.task import Choice, ChoicePrediction
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.tagging.task import Tagging
from bertjax.tasks.task import Task


def baseline(task: Task, examples: Sequence[Any]) -> float:
    """The best value of the task's metric, in 0..1, that one answer for all examples gives; else 0."""
    if isinstance(task, Classification) and task.label_type == "class":
        guesses = [
            [TextPrediction(label, _certain(task.labels, label))] * len(examples)
            for label in task.labels
        ]
        return max(task.figures(guess, examples)[task.metric] for guess in guesses)
    if isinstance(task, Choice):
        same = [
            ChoicePrediction(n, np.eye(task.choices, dtype=np.float32)[n])
            for n in range(task.choices)
        ]
        return max(task.figures([one] * len(examples), examples)[task.metric] for one in same)
    if isinstance(task, Tagging):
        commonest = Counter(tag for example in examples for tag in example.tags).most_common(1)[0][
            0
        ]
        return task.figures([(commonest,) * len(example.words) for example in examples], examples)[
            task.metric
        ]
    if isinstance(task, Spans) and task.version_2:
        return sum(not example.answers for example in examples) / len(examples)
    return 0.0


def _certain(labels: Sequence[str], label: str) -> tuple[float, ...]:
    return tuple(float(name == label) for name in labels)
