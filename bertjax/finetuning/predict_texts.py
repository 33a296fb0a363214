"""Prediction of lines of text by a fine-tuned model, without a file of the task."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from bertjax.errors import check
from bertjax.finetuning.evaluate_checkpoint import entries_of, predict_examples
from bertjax.finetuning.load import Finetuned
from bertjax.parallel import hosts
from bertjax.tasks.kind import Entry
from bertjax.tasks.registry import KINDS
from bertjax.tasks.text_lines import columns_of


class Answer(NamedTuple):
    """The prediction for a line."""

    prediction: Any
    """Its type depends on the kind of task."""
    cells: list[str]
    """The prediction as columns of text."""
    fields: dict[str, Any]
    """The prediction as values for JSON."""


def entry_for_texts(model: Finetuned, task: str) -> Entry:
    """Return the entry of the task that predicts texts: the one named `task`, or the only one.

    Raises `UserError` if there is no such task, or if there are several and none is named.
    """
    entries = {entry.name: entry for entry in entries_of(model)}
    if not task and len(entries) == 1:
        (task,) = entries
    check(
        task in entries,
        where="task",
        found=task or f"none, for a model of {len(entries)} tasks",
        expected=f"one of {', '.join(entries)}",
    )
    return entries[task]


def predict_lines(
    model: Finetuned, entry: Entry, texts: Sequence[str], first: int = 1
) -> list[Answer]:
    """Return the answer to each line of text, whose columns are separated by tabs.

    Each kind of task has its columns (`Kind.line_forms`). An empty line is an empty text, where one
    column is expected. Raises `UserError` for a line of other columns; it is named by its number,
    where the first line has the number `first`.
    """
    check(
        not hosts.is_multiprocess(),
        where="texts",
        found=f"{hosts.process_count()} processes",
        expected="one: texts are predicted by a single process",
    )
    kind, task = KINDS[entry.kind], model.objective.by_name[entry.name]
    options = model.config.finetune
    forms = kind.line_forms(task, entry.location, options)
    examples = []
    for number, text in enumerate(texts, first):
        where = f"{entry.name}: text {number}"
        _check_utf8(text, where)
        examples.append(kind.example_of(str(number - 1), columns_of(text, forms, where)))
    if not examples:
        return []
    predictions = predict_examples(model, entry, examples, model.tokenizer)
    return [
        Answer(
            prediction,
            kind.answer_cells(prediction, options),
            kind.answer_fields(task, prediction),
        )
        for prediction in predictions
    ]


def _check_utf8(text: str, where: str) -> None:
    """Raise `UserError` for an argument whose bytes are not UTF-8: Python keeps surrogates."""
    surrogates = [letter for letter in text if "\ud800" <= letter <= "\udfff"]
    check(
        not surrogates,
        where=where,
        found=f"the surrogate {''.join(surrogates[:1])!a}",
        expected="a text in UTF-8",
    )
