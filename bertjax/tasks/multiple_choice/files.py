"""Multiple choice in files: SWAG's CSV, CODAH's TSV, and any table with the same columns."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from bertjax.errors import check
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.files.splits import DataLocation, read_rows
from bertjax.tasks.files.tables import TableRow, listed, read_table

CODAH = ("category", "context", "ending0", "ending1", "ending2", "ending3", "label")
"""The columns of CODAH's `full_data.tsv` (arXiv 1904.04365), which has no header line."""
SWAG_STEMS = {"validation": ("val",)}
"""SWAG's names for the files of its splits: `DataLocation.stems`."""
CONTEXT_COLUMNS = ("context", "sent1")
"""Columns of the beginning, ours and SWAG's."""
START_COLUMNS = ("start", "sent2")
FOLDS = 5  # as in CODAH's paper


def read_choices(location: DataLocation, split: str) -> list[ChoiceExample]:
    """Return the examples of a split, a folder's or a TFDS data set's, such as `tfds:hellaswag`.

    They are in the order of the files. The columns are `context`, the beginning; `start`, which
    each ending begins with (may be absent); `ending0`, `ending1`, ... two or more, or in JSON and
    TFDS a list `endings`; `label`, the right one from 0 (absent, null, empty or -1: not known);
    `id` (absent: the example's number from 0). SWAG's own files (arXiv 1808.05326) need nothing
    more: `sent1` is read as `context`, `sent2` as `start`, and their first column, which has no
    name, as `id`. Other columns are not read.

    Raises `UserError` as `read_rows` does, and naming the file and the line for a column that is
    missing, a value that is no text, and a label that is not the number of an ending.
    """
    return _examples(read_rows(location, split))


def read_choice_file(path: epath.PathLike, columns: Sequence[str] = ()) -> list[ChoiceExample]:
    """Return the examples of one file, as `read_choices` does.

    CODAH's file has no header line: its `columns` are `CODAH`.
    """
    examples = _examples(read_table(path, columns))
    check(len(examples) > 0, where=str(path), found="no examples", expected="one or more")
    return examples


def fold_of(example: ChoiceExample, folds: int = FOLDS) -> int:
    """Return the one of `folds` parts that an example belongs to, by a hash of its context.

    So equal contexts are in one part. It is the first 8 bytes, big-endian, of the BLAKE2b digest of
    the context in UTF-8, modulo `folds`.
    """
    # Python's own hash of a text differs from process to process.
    digest = hashlib.blake2b(example.context.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % folds


def cross_validation(
    examples: Sequence[ChoiceExample], fold: int = 0, folds: int = FOLDS
) -> dict[str, list[ChoiceExample]]:
    """Return `train`, `validation` and `test` of one file, for cross-validation.

    `test` is part `fold` (from 0) by `fold_of`, `validation` the part after it (after the last
    comes the first), `train` the others. The order is kept. Raises `UserError` if `fold` is not one
    of the parts, or there are fewer than 3.
    """
    # One part each for test and validation, and one or more to train on.
    check(folds >= 3, where="folds", found=folds, expected="3 or more")
    check(0 <= fold < folds, where="fold", found=fold, expected=f"0 to {folds - 1}")
    split_of_fold = {fold: "test", (fold + 1) % folds: "validation"}
    splits: dict[str, list[ChoiceExample]] = {"train": [], "validation": [], "test": []}
    for example in examples:
        split = split_of_fold.get(fold_of(example, folds), "train")
        splits[split].append(example)
    return splits


def _examples(table_rows: Iterable[TableRow]) -> list[ChoiceExample]:
    return [_example(row, number) for number, row in enumerate(table_rows)]


def _example(row: TableRow, number: int) -> ChoiceExample:
    values = row.values
    context = _first_value(row, CONTEXT_COLUMNS)
    check(
        context is not None,
        where=row.where,
        found=f"the columns {listed(values)}",
        expected=" or ".join(CONTEXT_COLUMNS),
    )
    endings = values.get("endings") or _numbered_endings(row)
    check(
        isinstance(endings, list | tuple) and len(endings) > 1,
        where=row.where,
        found=f"the columns {listed(values)}",
        expected="endings, a list of two or more, or ending0, ending1, ...",
    )
    start = _first_value(row, START_COLUMNS) or ""
    _check_text(row, "context", context)
    _check_text(row, "start", start)
    for index, ending in enumerate(endings):
        _check_text(row, f"ending{index}", ending)
    return ChoiceExample(
        id=str(values.get("id", values.get("", number))),
        context=context,
        start=start,
        endings=tuple(endings),
        label=_label(row, len(endings)),
    )


def _check_text(row: TableRow, column: str, value: object) -> None:
    check(
        isinstance(value, str),
        where=f"{row.where}: {column}",
        found=repr(value)[:100],
        expected="text",
    )


def _first_value(row: TableRow, columns: Sequence[str]) -> Any:
    """Return the value of the first of the columns that is there; None without any."""
    for column in columns:
        if column in row.values:
            return row.values[column]
    return None


def _numbered_endings(row: TableRow) -> tuple[Any, ...]:
    """Return the values of `ending0`, `ending1` and so on."""
    endings: list[Any] = []
    while f"ending{len(endings)}" in row.values:
        endings.append(row.values[f"ending{len(endings)}"])
    return tuple(endings)


def _label(row: TableRow, choices: int) -> int | None:
    """Return the number of the right ending; None if it is not known."""
    label = row.values.get("label")
    if label in (None, "", -1, "-1"):
        return None
    # As text: tables have text, JSON has numbers.
    numbers = {str(choice) for choice in range(choices)}
    check(
        str(label).strip() in numbers,
        where=f"{row.where}: label",
        found=repr(label)[:100],
        expected=f"0 to {choices - 1}, the number of an ending",
    )
    return int(label)
