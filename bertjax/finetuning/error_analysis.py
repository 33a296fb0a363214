"""What a person looks at after an evaluation: figures, confusion, calibration, the worst errors
with their text.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from etils import epath

from bertjax.finetuning.evaluate import Assessed
from bertjax.storage import write_whole
from bertjax.tasks import metrics
from bertjax.tasks.classification import examples as text_examples
from bertjax.tasks.classification.task import Classification
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.question_answering import task as spans
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.tagging import task as tagging
from bertjax.tasks.tagging.task import Tagging
from bertjax.tasks.task import Task

FILE = "evaluation.json"
ERRORS = 20  # that are shown
MOST_LABELS = 40  # of a confusion matrix that is shown


def write_evaluation(
    run_dir: epath.Path, step: int, found: Assessed, figures: dict[str, float]
) -> epath.Path:
    """Write `evaluation.json`: of the checkpoint at `step` all `figures`, and each split's
    `described`.

    Figures that are no finite number, which JSON does not have, are left out.
    """
    splits = [
        {
            "task": task.name,
            "split": split.name,
            "metric": task.metric,
            "examples": len(split.examples),
            "figures": _finite(evaluated.figures),
            **described(task, evaluated.predictions, split.examples),
        }
        for task, split, evaluated in found
    ]
    path = run_dir / FILE
    content = {"step": step, "figures": _finite(figures), "splits": splits}
    write_whole(
        path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    )
    return path


def _finite(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def described(task: Task, predictions: Sequence[Any], examples: Sequence[Any]) -> dict[str, Any]:
    """`errors`, the worst ones: text, expected, predicted; where classes are predicted `confusion`,
    `calibration`.
    """
    if isinstance(task, Classification):
        return _of_text(task, predictions, examples)
    if isinstance(task, Tagging):
        return _of_tags(task, predictions, examples)
    if isinstance(task, Spans):
        worst = spans.worst_errors(predictions, examples, ERRORS)
        return {
            "errors": [
                _error(_asked(wrong.example), _answers(wrong.example), wrong.text)
                for wrong in worst
            ]
        }
    if isinstance(task, Choice):
        return _of_choices(predictions, examples)
    pairs = [
        (p, e) for p, e in zip(predictions, examples, strict=True) if p.split() != e.target.split()
    ]
    return {
        "errors": [
            _error(example.source, example.target, predicted)
            for predicted, example in pairs[:ERRORS]
        ]
    }


def _error(text: str, expected: str, predicted: str) -> dict[str, str]:
    return {"text": text[:1000], "expected": expected[:300], "predicted": predicted[:300]}


def _asked(example: Any) -> str:
    return f"{example.question}  ({example.context})"


def _answers(example: Any) -> str:
    return " | ".join(dict.fromkeys(text for text, _ in example.answers or ())) or "no answer"


def _of_text(
    task: Classification, predictions: Sequence[Any], examples: Sequence[Any]
) -> dict[str, Any]:
    def shown(prediction: Any) -> str:
        if prediction.value is not None:
            return f"{prediction.value:.3f}"
        if isinstance(prediction.label, tuple):
            return ", ".join(prediction.label) or "none"
        return f"{prediction.label} ({max(prediction.probabilities):.0%})"

    def expected(label: Any) -> str:
        return (", ".join(label) or "none") if isinstance(label, tuple) else str(label)

    errors = [
        _error(
            wrong.example.text
            + (f"  |  {wrong.example.pair}" if wrong.example.pair is not None else ""),
            expected(wrong.example.label),
            shown(wrong.prediction),
        )
        for wrong in text_examples.worst_errors(task, predictions, examples, ERRORS)
    ]
    found: dict[str, Any] = {"errors": errors}
    if task.label_type == "class":
        found["confusion"] = _confusion(task.labels, task.confusion(predictions, examples))
    if task.label_type != "number" and _have_numbers(predictions):
        found["calibration"] = _calibration(task.calibration(predictions, examples))
    return found


def _of_tags(task: Tagging, predictions: Sequence[Any], examples: Sequence[Any]) -> dict[str, Any]:
    wrong = tagging.worst_errors(predictions, examples, ERRORS)
    counts = tagging.confusion(predictions, examples, task.labels)
    errors = [_error(one.text, one.gold, one.predicted) for one in wrong]
    return {"confusion": _confusion(task.labels, counts), "errors": errors}


def _of_choices(predictions: Sequence[Any], examples: Sequence[Any]) -> dict[str, Any]:
    right = [
        prediction.choice == example.label
        for prediction, example in zip(predictions, examples, strict=True)
    ]
    worst = [one for one in zip(predictions, examples, right, strict=True) if not one[2]]
    worst.sort(key=lambda one: -max(one[0].probabilities))  # the surest first
    errors = [
        _error(e.context, e.endings[e.label], e.endings[p.choice]) for p, e, _ in worst[:ERRORS]
    ]
    found: dict[str, Any] = {"errors": errors}
    if _have_numbers(predictions):
        found["calibration"] = _calibration(
            metrics.reliability([max(p.probabilities) for p in predictions], right)
        )
    return found


def _confusion(labels: Sequence[str], counts: Any) -> dict[str, Any]:
    """Rows are what is true; of many labels the commonest."""
    commonest = sorted(
        sorted(range(len(labels)), key=lambda i: -int(counts[i].sum()))[:MOST_LABELS]
    )
    return {
        "labels": [labels[i] for i in commonest],
        "counts": [[int(counts[i][j]) for j in commonest] for i in commonest],
    }


def _have_numbers(predictions: Sequence[Any]) -> bool:
    """Whether all probabilities are numbers, which those of a model gone astray are not."""
    return all(
        math.isfinite(probability)
        for prediction in predictions
        for probability in prediction.probabilities
    )


def _calibration(table: list[metrics.Bin]) -> dict[str, Any]:
    return {
        "expected_calibration_error": metrics.expected_calibration_error(table),
        "bins": [{name: float(value) for name, value in one._asdict().items()} for one in table],
    }
