"""Reading of multiple-choice files: the CSV of SWAG, the TSV of CODAH, and similar tables."""

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from bertjax.errors import check
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.files.lines import UTF8
from bertjax.tasks.files.missing import is_missing
from bertjax.tasks.files.row import TableRow, listed
from bertjax.tasks.files.splits import DataLocation, read_rows
from bertjax.tasks.files.tables import read_table

CODAH = ("category", "context", "ending0", "ending1", "ending2", "ending3", "label")
"""The columns of CODAH's `full_data.tsv` (arXiv 1904.04365), which has no header line."""
SWAG_STEMS = {"validation": ("val",)}
"""Names of SWAG's files for `DataLocation.stems`."""
CONTEXT_COLUMNS = ("context", "sent1")
"""Possible columns of the context: our name, and the name in SWAG."""
START_COLUMNS = ("start", "sent2")
WHOLE_NUMBER = re.compile(r"(-?\d+)(\.0*)?")
FOLDS = 5  # as in CODAH's paper

log = logging.getLogger("bertjax")


def read_choices(location: DataLocation, split: str) -> list[ChoiceExample]:
    """Return the examples of a split of a folder or of a TFDS data set, such as `tfds:hellaswag`.

    The examples are in the order of the files. The columns are:

    - `context`: the text before the endings.
    - `start`: the text at the beginning of every ending; optional.
    - `ending0`, `ending1` and so on, two or more. In JSON and TFDS it may be a list `endings`.
    - `label`: the number of the right ending, from 0. If it is absent, null, NaN, empty or -1, the
      right ending is not known.
    - `id`: optional; by default the number of the example, from 0.

    Other columns are not read. SWAG's own files (arXiv 1808.05326) can be read as they are: `sent1`
    is the `context`, `sent2` the `start`, and the first column, whose name is empty, the `id`.

    Raises `UserError` as `read_rows` does. Raises `UserError`, with file and line, also for a
    missing column, a value that is not a text, or a label that is not the number of an ending.
    """
    return _examples(read_rows(location, split))


def read_choice_file(
    path: epath.PathLike, columns: Sequence[str] = (), encoding: str = UTF8
) -> list[ChoiceExample]:
    """Return the examples of one file in the format of `read_choices`.

    The file of CODAH has no header line; give `CODAH` as `columns` for it.
    """
    examples = _examples(read_table(path, columns, encoding=encoding))
    check(len(examples) > 0, where=str(path), found="no examples", expected="one or more")
    return examples


def with_labels(examples: Sequence[ChoiceExample], where: str) -> list[ChoiceExample]:
    """Return the examples whose right ending is known; the log says how many are left out.

    `where` names the split. Raises `UserError` if no example is left.
    """
    known = [example for example in examples if example.label is not None]
    if len(known) < len(examples):
        log.info(
            "%s: examples without a label, which were left out: %d of %d",
            where,
            len(examples) - len(known),
            len(examples),
        )
    check(known, where=where, found="no example with a label", expected="one or more")
    return known


def fold_of(example: ChoiceExample, folds: int = FOLDS) -> int:
    """Return the number of the fold that an example belongs to, computed from its context.

    It is (BLAKE2b digest of 8 bytes of the context in UTF-8, as a big-endian number) % `folds`.
    Examples with the same context are therefore in the same fold.
    """
    # Python's own hash of a text differs from process to process.
    digest = hashlib.blake2b(example.context.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % folds


def cross_validation(
    examples: Sequence[ChoiceExample], fold: int = 0, folds: int = FOLDS
) -> dict[str, list[ChoiceExample]]:
    """Divide the examples of one file into `train`, `validation` and `test` by cross-validation.

    `fold_of` gives the fold of each example. `test` has fold number `fold`, `validation` has fold
    number (`fold` + 1) % `folds`, and `train` has all other folds. The order of the examples is
    kept. Raises `UserError` if `folds` is less than 3, or if `fold` is not in 0..folds-1.
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
    """Return the value of the first of `columns` that the row has; None if it has none of them."""
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
    text = str(label).strip()
    # A column of integers becomes one of floats, 1.0, if a value is missing.
    match = WHOLE_NUMBER.fullmatch(text)
    if is_missing(label) or (match and match[1] == "-1"):
        return None
    check(
        match and match[1] in map(str, range(choices)),
        where=f"{row.where}: label",
        found=repr(label)[:100],
        expected=f"0 to {choices - 1}, the number of an ending",
    )
    assert match is not None
    return int(match[1])
