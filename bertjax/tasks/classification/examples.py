"""Examples of text from any table or a task of GLUE, what their labels are, and predictions back
into a table.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from etils import epath

from bertjax.errors import UserError, check
from bertjax.storage import write_whole
from bertjax.tasks.classification.glue import GlueTask, glue_label
from bertjax.tasks.classification.task import THRESHOLD, Classification, LabelType, TextPrediction
from bertjax.tasks.examples import TextExample
from bertjax.tasks.files.splits import Source, read_rows
from bertjax.tasks.files.tables import Row, listed

TEXTS = (("sentence1", "sentence2"), ("sentence",), ("text",))
IDS = ("index", "idx", "id", "guid")
Label = str | float | tuple[str, ...] | None

log = logging.getLogger("bertjax")


def read_examples(
    source: Source,
    split: str,
    *,
    task: GlueTask | None = None,
    text_columns: Sequence[str] = (),
    label_column: str = "",
    label_type: LabelType = "class",
    label_separator: str = ",",
    unlabelled: bool = False,
) -> list[TextExample]:
    """The examples of a split, in the order of its files.

    The texts are in one or two `text_columns`: by default a GLUE task's own, or else its fields in
    TFDS; without a task `sentence1` and `sentence2`, `sentence`, or `text`. The label is in
    `label_column`: by default the task's own, or `label`. A class is text as it stands, without
    spaces around it (of a task, the label's name); classes are between `label_separator`s, or a
    list in JSON, and may be none; a number is finite. The id is in the column `index`, `idx`, `id`
    or `guid`, or else the number of the row from 0; of several files, after the file's name.

    Rows whose label is empty, null or -1 (a task's) are left out, and the log says how many. With
    `unlabelled` they are kept, with the label None, and there need be no label column: what a test
    set needs. Raises `UserError` as `read_rows` does, and naming file and line for a missing
    column, a value that is no text, a label that is no number or none of the task's, and a split
    where nothing is left.
    """
    if task is not None:
        source = _of_task(source, task)
    ragged: Counter[str] | None = Counter() if task is not None and task.broken_lines else None
    rows = read_rows(source, split, ragged)
    first = next(rows)
    texts = _text_columns(first, task, text_columns)
    label_at = _label_column(first, task, label_column, unlabelled)
    several_files = not source.is_tfds and len(source.files.get(split, ())) > 1
    spelled: dict[Any, Label] = {}
    examples, left_out = [], 0
    for number, row in enumerate(chain([first], rows)):
        label = _label(row, label_at, task, label_type, label_separator, unlabelled, spelled)
        if label is None and not unlabelled:
            left_out += 1
            continue
        found = [_text(row, column) for column in texts]
        name = next(
            (str(row.values[column]) for column in IDS if column in row.values), str(number)
        )
        if several_files:
            name = f"{epath.Path(row.file).name.partition('.')[0]}:{name}"
        examples.append(TextExample(name, found[0], found[1] if len(found) > 1 else None, label))
    if left_out:
        said = "%s, split %s: examples without a label, which were left out: %d of %d"
        log.info(said, source.place, split, left_out, left_out + len(examples))
    if ragged:
        said = ", ".join(f"{file} {count}" for file, count in ragged.items())
        log.info("lines with a wrong number of columns, which were left out: %s", said)
    check(
        examples,
        where=f"{source.place}, split {split}",
        found="no example with a label",
        expected="one or more",
    )
    return examples


def labels_of(examples: Sequence[TextExample]) -> tuple[str, ...]:
    """The classes of the training examples in order: as text, or by their numbers where all are
    whole numbers.
    """
    found = {str(label) for example in examples for label in _labels(example)}
    whole = all(label.removeprefix("-").isdecimal() for label in found)
    return tuple(sorted(found, key=lambda label: (int(label), label) if whole else (0, label)))


def balanced_weights(labels: Sequence[str], examples: Sequence[TextExample]) -> tuple[float, ...]:
    """Class weights in inverse proportion to the classes' training examples: n / (C n_c), as
    scikit-learn's.

    n is the number of all labels, C that of the classes; so the mean weight of a label is 1. Raises
    `UserError` for a class without an example.
    """
    counts = Counter(label for example in examples for label in _labels(example))
    for label in labels:
        check(
            counts[label] > 0,
            where=f"class_weights balanced, label {label}",
            found="no training example",
            expected="one or more",
        )
    total = sum(counts[label] for label in labels)
    return tuple(total / (len(labels) * counts[label]) for label in labels)


class WorstError(NamedTuple):
    """A prediction that is wrong."""

    example: TextExample
    prediction: TextPrediction
    error: float
    """1 less the probability of what is true; of several classes the largest of them; of a number,
    the distance.
    """


def worst_errors(
    task: Classification,
    predictions: Sequence[TextPrediction],
    examples: Sequence[TextExample],
    n: int,
) -> list[WorstError]:
    """At most `n` wrong predictions, the worst first; as they stand where they are alike."""
    found = []
    for prediction, example in zip(predictions, examples, strict=True):
        error = _error(task, prediction, example)
        if (
            prediction.value != example.label
            if task.label_type == "number"
            else _is_wrong(task, prediction, example)
        ):
            found.append(WorstError(example, prediction, error))
    return sorted(found, key=lambda wrong: -wrong.error)[:n]


def write_predictions(
    path: epath.PathLike,
    predictions: Sequence[TextPrediction],
    examples: Sequence[TextExample],
    label_separator: str = ",",
) -> None:
    """Write a TSV with a header: `id`, `sentence` or `sentence1` and `sentence2`, `prediction`,
    `probability`.

    Several classes and their probabilities stand between `label_separator`s; a number has no
    probability. Tabs and line ends within a text become spaces.
    """
    pairs = any(example.pair is not None for example in examples)
    values = any(prediction.value is not None for prediction in predictions)
    header = ["id", *(("sentence1", "sentence2") if pairs else ("sentence",)), "prediction"]
    lines = [header if values else [*header, "probability"]]
    for prediction, example in zip(predictions, examples, strict=True):
        cells = [example.id, example.text, *((example.pair or "",) if pairs else ())]
        if prediction.value is not None:
            cells.append(f"{prediction.value:.6g}")
        elif isinstance(prediction.label, tuple):
            given = [f"{p:.4f}" for p in prediction.probabilities if p >= THRESHOLD]
            cells += [label_separator.join(prediction.label), label_separator.join(given)]
        else:
            cells += [str(prediction.label), f"{max(prediction.probabilities):.4f}"]
        lines.append(cells)
    text = "".join("\t".join(_one_cell(cell) for cell in cells) + "\n" for cells in lines)
    write_whole(epath.Path(path), text.encode())


def _of_task(source: Source, task: GlueTask) -> Source:
    if source.columns:
        return replace(source, stems={**task.stems, **source.stems})
    return replace(
        source, columns=task.columns, header_has=task.texts, stems={**task.stems, **source.stems}
    )


def _text_columns(row: Row, task: GlueTask | None, given: Sequence[str]) -> Sequence[str]:
    if given:
        check(
            len(given) <= 2,
            where="finetune.text_columns",
            found=listed(given),
            expected="one or two columns",
        )
        for column in given:
            row.value(column)
        return given
    options = [task.texts, task.tfds_texts] if task is not None else TEXTS
    for option in options:
        if option and all(column in row.values for column in option):
            return option
    wanted = "; or ".join(" and ".join(option) for option in options if option)
    raise UserError(
        f"{row.where}: found the columns {listed(row.values)}, expected {wanted} (or finetune.text_columns to name"
        " them, and finetune.columns where the file has no header)"
    )


def _label_column(row: Row, task: GlueTask | None, given: str, unlabelled: bool) -> str:
    options = (given,) if given else ("label",) if task is None else (task.label_column, "label")
    found = next((column for column in options if column in row.values), "")
    if not found and not unlabelled:
        wanted = f"{' or '.join(dict.fromkeys(options))} (or finetune.label_column to name it)"
        raise UserError(f"{row.where}: found the columns {listed(row.values)}, expected {wanted}")
    return found


def _text(row: Row, column: str) -> str:
    value = row.value(column)
    if not isinstance(value, str):
        raise UserError(
            f"{row.where}, {column}: found a value of type {type(value).__name__}, expected text"
        )
    return value


def _label(
    row: Row,
    column: str,
    task: GlueTask | None,
    label_type: LabelType,
    separator: str,
    unlabelled: bool,
    spelled: dict[Any, Label],
) -> Label:
    value = (row.values.get(column) if unlabelled else row.value(column)) if column else None
    if isinstance(value, str) and value in spelled:
        return spelled[value]  # one object for all examples of a class
    label = (
        glue_label(task, value, row.where)
        if task is not None
        else _spelled(value, row, label_type, separator)
    )
    if isinstance(value, str):
        spelled[value] = label
    return label


def _spelled(value: Any, row: Row, label_type: LabelType, separator: str) -> Label:
    if value is None:
        return None
    if label_type == "classes":
        parts = value if isinstance(value, list) else str(value).split(separator)
        return tuple(dict.fromkeys(text for part in parts if (text := _class(part, row))))
    if label_type == "class":
        return _class(value, row) or None
    if value == "":
        return None
    try:
        number = (
            float(value)
            if isinstance(value, str | int | float) and not isinstance(value, bool)
            else math.nan
        )
    except (ValueError, OverflowError):
        number = math.nan
    check(math.isfinite(number), where=row.where, found=f"the label {value!r}", expected="a number")
    return number


def _class(value: Any, row: Row) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    good = isinstance(value, str | int | float)
    check(
        good,
        where=row.where,
        found=f"a label of type {type(value).__name__}",
        expected="text or a number",
    )
    return str(value).strip()


def _labels(example: TextExample) -> Iterator[str]:
    if isinstance(example.label, tuple):
        yield from example.label
    elif example.label is not None:
        yield str(example.label)


def _is_wrong(task: Classification, prediction: TextPrediction, example: TextExample) -> bool:
    if task.label_type == "class":
        return prediction.label != example.label
    return set(prediction.label or ()) != set(_labels(example))


def _error(task: Classification, prediction: TextPrediction, example: TextExample) -> float:
    if task.label_type == "number":
        assert prediction.value is not None
        assert isinstance(example.label, int | float)
        return abs(prediction.value - example.label)
    given: Mapping[str, float] = dict(zip(task.labels, prediction.probabilities, strict=True))
    true = set(_labels(example))
    if task.label_type == "class":
        return 1 - min(given[label] for label in true)
    return max(1 - p if label in true else p for label, p in given.items())


def _one_cell(text: str) -> str:
    return text.replace("\t", " ").replace("\r", " ").replace("\n", " ")
