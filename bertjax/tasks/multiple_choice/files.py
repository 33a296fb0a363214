"""Multiple choice in files: SWAG's CSV, CODAH's TSV, and any table or JSON lines with the same
columns.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from bertjax.errors import check
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.files.splits import DataLocation, read_rows
from bertjax.tasks.files.tables import TableRow, listed, read_table

CODAH = ("category", "context", "ending0", "ending1", "ending2", "ending3", "label")
"""The columns of CODAH's `full_data.tsv` (arXiv 1904.04365), which has no header line."""
SWAG_STEMS = {"validation": ("val",)}
"""What SWAG calls the files of its splits: `Source.stems`."""
CONTEXT, START = ("context", "sent1"), ("start", "sent2")  # ours, SWAG's
FOLDS = 5


def read_choices(source: DataLocation, split: str) -> list[ChoiceExample]:
    """The examples of a split of `source`, a folder or a data set of TFDS such as `tfds:hellaswag`,
    in their order.

    Read are the columns `context`, the beginning; `start`, which each ending begins with (may be
    absent); `ending0`, `ending1`, ... two or more, or in JSON and TFDS a list `endings`; `label`,
    the right one from 0 (absent, null, empty or -1: not known); `id` (absent: the example's number
    from 0). SWAG's own files (arXiv 1808.05326) need nothing more: `sent1` is read as `context`,
    `sent2` as `start`, and their first column, which has no name, as `id`. Other columns are left
    alone.

    Raises `UserError` as `read_rows` does, and naming the file and the line for a column that is
    missing, a text that is none, and a label that is not the number of an ending.
    """
    return _examples(read_rows(source, split))


def read_choice_file(path: epath.PathLike, columns: Sequence[str] = ()) -> list[ChoiceExample]:
    """The examples of one file, as `read_choices`; of CODAH's with `CODAH` for `columns`, as it has
    no header line.
    """
    examples = _examples(read_table(path, columns))
    check(len(examples) > 0, where=str(path), found="no examples", expected="one or more")
    return examples


def fold_of(example: ChoiceExample, folds: int = FOLDS) -> int:
    """Which of `folds` parts an example is of: a hash of its context, so that equal contexts are
    never parted.

    The first 8 bytes, big-endian, of the BLAKE2b digest of the context in UTF-8, modulo `folds`.
    """
    digest = hashlib.blake2b(example.context.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % folds


def cross_validation(
    examples: Sequence[ChoiceExample], fold: int = 0, folds: int = FOLDS
) -> dict[str, list[ChoiceExample]]:
    """`train`, `validation` and `test` of one file, for cross-validation: `test` is part `fold`
    (from 0) by `fold_of`.

    `validation` is the part after it (after the last comes the first), `train` the others. Their
    order is kept. Raises `UserError` where `fold` is not one of the parts, or there are fewer than
    3.
    """
    check(folds >= 3, where="folds", found=folds, expected="3 or more")
    check(0 <= fold < folds, where="fold", found=fold, expected=f"0 to {folds - 1}")
    split = {fold: "test", (fold + 1) % folds: "validation"}
    found: dict[str, list[ChoiceExample]] = {"train": [], "validation": [], "test": []}
    for example in examples:
        found[split.get(fold_of(example, folds), "train")].append(example)
    return found


def _examples(rows: Iterable[TableRow]) -> list[ChoiceExample]:
    return [_example(row, number) for number, row in enumerate(rows)]


def _example(row: TableRow, number: int) -> ChoiceExample:
    record, where = row.values, row.where
    context = _first(row, CONTEXT)
    check(
        context is not None,
        where=where,
        found=f"the columns {listed(record)}",
        expected=" or ".join(CONTEXT),
    )
    endings = record.get("endings") or tuple(_numbered(row))
    several = isinstance(endings, list | tuple) and len(endings) > 1
    check(
        several,
        where=where,
        found=f"the columns {listed(record)}",
        expected="endings, a list of two or more, or ending0, ending1, ...",
    )
    texts = {
        "context": context,
        "start": _first(row, START) or "",
        **{f"ending{i}": e for i, e in enumerate(endings)},
    }
    for column, text in texts.items():
        check(
            isinstance(text, str),
            where=f"{where}: {column}",
            found=repr(text)[:100],
            expected="text",
        )
    label = record.get("label")
    return ChoiceExample(
        id=str(record.get("id", record.get("", number))),
        context=texts["context"],
        start=texts["start"],
        endings=tuple(endings),
        label=None if label in (None, "", -1, "-1") else _label(where, label, len(endings)),
    )


def _first(row: TableRow, names: Sequence[str]) -> Any:
    return next((row.values[name] for name in names if name in row.values), None)


def _numbered(row: TableRow) -> Iterator[Any]:
    number = 0
    while f"ending{number}" in row.values:
        yield row.values[f"ending{number}"]
        number += 1


def _label(where: str, label: Any, choices: int) -> int:
    good = str(label).strip() in {str(choice) for choice in range(choices)}
    check(
        good,
        where=f"{where}: label",
        found=repr(label)[:100],
        expected=f"0 to {choices - 1}, the number of an ending",
    )
    return int(label)
