"""Reading of texts and labels from any table, from a GLUE task's own files, or from TFDS."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from etils import epath

from bertjax.errors import UserError, check
from bertjax.tasks.classification.glue import GlueTask
from bertjax.tasks.classification.label_columns import LabelColumn, LabelColumns
from bertjax.tasks.classification.label_lists import ListedClasses
from bertjax.tasks.classification.labels import LabelType, label_parser
from bertjax.tasks.classification.list_texts import Listed
from bertjax.tasks.examples import TextExample
from bertjax.tasks.files.row import TableRow, listed
from bertjax.tasks.files.splits import PYTHON_DOCS, DataLocation, read_rows

TEXT_COLUMNS = (("sentence1", "sentence2"), ("sentence",), ("text",))
"""Default columns of the texts: the first of these that the table has."""
# The column is index or id in GLUE's own files, and idx in TFDS.
ID_COLUMNS = ("index", "idx", "id", "guid")

log = logging.getLogger("bertjax")


def read_examples(
    location: DataLocation,
    split: str,
    *,
    task: GlueTask | None = None,
    text_columns: Sequence[str] = (),
    label_column: str = "",
    label_type: LabelType = "class",
    label_separator: str = ",",
    label_columns: Sequence[str] = (),
    unlabelled: bool = False,
) -> list[TextExample]:
    """Return the examples of a split, in the order of its files.

    `text_columns` has the one or two columns of the texts. Its default for a GLUE `task` is the
    task's own columns or else its fields in TFDS. Without a task it is `sentence1` and `sentence2`,
    or `sentence`, or `text`. `label_column` is by default the task's own column or else `label`.
    Capitals do not matter in these defaults.

    A class is the text of the cell without spaces around it; for a GLUE task it is the label's
    name. Several classes are separated by `label_separator`, or are a list; there may be none.
    Lists of 0 and 1 have a place for each class (`ListedClasses`). With `label_columns` there is a
    column of 0 and 1 for each class. A number must be finite.

    The id is taken from the column `index`, `idx`, `id` or `guid`; without such a column it is the
    number of the table row, from 0. If the split has several files, the file's name comes before
    the id.

    An example has no label if its label is empty, null or NaN, or -1 for a GLUE task, or if all
    `label_columns` are without a value. If several classes are possible, an empty text is a label:
    no class; but among lists of 0 and 1 it is a missing one. Examples without a label are left out,
    and the log says how many. With `unlabelled`, as for a test set, they are kept with the label
    None, and the table needs no label column.

    Raises `UserError` as `read_rows` does. It also raises `UserError`, with file and line, for a
    missing column, a text that is not a string, or a label that is not a number or not one of the
    task's. Another `UserError` says that no example is left.
    """
    # Some GLUE files have broken lines. Published results on these tasks leave them out too.
    broken_lines: Counter[str] | None = None
    if task is not None:
        location = _with_task_columns(location, task)
        broken_lines = Counter() if task.broken_lines else None
    label_names = () if label_columns else _label_names(task, label_column)
    table_rows = read_rows(location, split, broken_lines, label_names)
    # There is one: `read_rows` raises where a split has no row.
    first = next(table_rows)
    texts = _text_columns(first, task, text_columns)
    parser = label_parser(task, label_type, label_separator)
    labels: LabelColumn | LabelColumns
    if label_columns:
        labels = LabelColumns(tuple(label_columns), required=not unlabelled)
    else:
        column = _label_column(first, task, label_column, unlabelled)
        labels = LabelColumn(column, parser, not unlabelled, texts)
    several_files = not location.is_tfds and len(location.files.get(split, ())) > 1
    is_list = task is None and label_type == "classes" and not label_columns
    lists = ListedClasses() if is_list else None
    examples = []
    # The examples of `lists`, which have no classes before all lists are known.
    listed_examples: list[tuple[str, str, str | None, Any]] = []
    left_out = 0
    for number, row in enumerate(chain([first], table_rows)):
        label = labels.label_of(row)
        if label is None and not unlabelled:
            left_out += 1
            continue
        values = [_text(row, column) for column in texts]
        pair = values[1] if len(values) > 1 else None
        identifier = _identifier(row, number, several_files)
        if lists is None:
            examples.append(TextExample(identifier, values[0], pair, label, labels.classes))
        else:
            key = lists.add(label, row) if isinstance(label, Listed) else None
            listed_examples.append((identifier, values[0], pair, key))
    labels.check_no_header()
    if lists is not None:
        examples = _with_classes(listed_examples, lists, unlabelled)
        left_out += len(listed_examples) - len(examples)
    where = f"{location.path}, split {split}"
    _log_left_out(where, left_out, left_out + len(examples), broken_lines)
    check(examples, where=where, found="no example with a label", expected="one or more")
    return examples


def _with_classes(
    listed_examples: Sequence[tuple[str, str, str | None, Any]],
    lists: ListedClasses,
    unlabelled: bool,
) -> list[TextExample]:
    """Return the examples, whose last value is a key of `lists`, with their classes.

    Unless `unlabelled` is true, those without a label are left out.
    """
    classes, all_classes = lists.classes()
    labels: dict[Any, tuple[str, ...] | None] = {None: None, **classes}
    return [
        TextExample(identifier, text, pair, labels[key], all_classes)
        for identifier, text, pair, key in listed_examples
        if unlabelled or labels[key] is not None
    ]


def _log_left_out(
    where: str, left_out: int, total: int, broken_lines: Mapping[str, int] | None
) -> None:
    if left_out:
        log.info(
            "%s: examples without a label, which were left out: %d of %d", where, left_out, total
        )
    if broken_lines:
        counts = ", ".join(f"{file} {count}" for file, count in broken_lines.items())
        log.info("lines with a wrong number of columns, which were left out: %s", counts)


def _with_task_columns(location: DataLocation, task: GlueTask) -> DataLocation:
    """Return the location with a GLUE task's file names, and its columns if none are given."""
    stems = {**task.stems, **location.stems}
    if location.columns:
        return replace(location, stems=stems)
    # CoLA's training and validation files have no header line, but its test file has one.
    return replace(location, columns=task.columns, header_has=task.texts, stems=stems)


def _text_columns(row: TableRow, task: GlueTask | None, given: Sequence[str]) -> Sequence[str]:
    """Return the columns of the texts: those `given`, or the first default ones that `row` has."""
    if given:
        check(
            len(given) <= 2,
            where="finetune.text_columns",
            found=listed(given),
            expected="one or two columns",
        )
        for column in given:
            # For its error, which names the columns that there are.
            row.value(column)
        return given
    usual = TEXT_COLUMNS if task is None else (task.texts, task.tfds_texts)
    options = [option for option in usual if option]
    for option in options:
        columns = [_as_written(row, column) for column in option]
        if all(columns):
            return columns
    expected = "; or ".join(map(" and ".join, options))
    raise UserError(
        f"{row.where}: found the columns {listed(row.values)}, expected {expected}"
        " (or finetune.text_columns to name them,"
        " and finetune.columns where the file has no header)"
    )


def text_columns_of(
    location: DataLocation, task: GlueTask | None, given: Sequence[str]
) -> tuple[str, ...]:
    """Return the columns of the texts of a task; empty if they are not known.

    They are those `given`, or those of the GLUE `task`, or those of the first training example,
    which is read where it is in a file that is still there.
    """
    if given:
        return tuple(given)
    if task is not None:
        return task.texts
    # To read these takes longer than the prediction: 5 s for the documentation of Python.
    if location.path == PYTHON_DOCS:
        return ("text",)
    if location.is_tfds:
        return ()
    try:
        return tuple(_text_columns(next(read_rows(location, "train")), None, ()))
    except UserError:
        # The model predicts texts where its training files are not.
        return ()


def _label_names(task: GlueTask | None, given: str) -> tuple[str, ...]:
    """Return the names that the column of the labels may have."""
    if given:
        return (given,)
    return ("label",) if task is None else (task.label_column, "label")


def _label_column(row: TableRow, task: GlueTask | None, given: str, unlabelled: bool) -> str:
    """Return the column of the labels; empty if there is none and `unlabelled` is true."""
    options = _label_names(task, given)
    for option in options:
        # A name that the user gives is meant as it is.
        column = option if given else _as_written(row, option)
        if column in row.values:
            return column
    if unlabelled:
        return ""
    expected = " or ".join(dict.fromkeys(options))
    raise UserError(
        f"{row.where}: found the columns {listed(row.values)},"
        f" expected {expected} (or finetune.label_column to name it)"
    )


def _as_written(row: TableRow, column: str) -> str:
    """Return a column's name as the row has it: `Label` for `label`; "" if it is not there."""
    if column in row.values:
        return column
    same = [name for name in row.values if name.strip().casefold() == column.casefold()]
    # Of Label and LABEL neither is meant more than the other.
    return same[0] if len(same) == 1 else ""


def _text(row: TableRow, column: str) -> str:
    value = row.value(column)
    if not isinstance(value, str):
        raise UserError(
            f"{row.where}, {column}: found a value of type {type(value).__name__}, expected text"
        )
    return value


def _identifier(row: TableRow, number: int, several_files: bool) -> str:
    """Return the id of an example, its own or `number`; FILE:ID if there are several files."""
    identifier = str(number)
    for column in ID_COLUMNS:
        if column in row.values:
            identifier = str(row.values[column])
            break
    if several_files:
        file = epath.Path(row.file).name.partition(".")[0]
        return f"{file}:{identifier}"
    return identifier
