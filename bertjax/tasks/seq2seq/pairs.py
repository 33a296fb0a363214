"""Pairs of texts from a task's data: what is read, and what it is to become."""

from collections.abc import Iterator
from dataclasses import replace

from etils import epath

from bertjax.errors import UserError, check
from bertjax.storage import opened
from bertjax.tasks.examples import PairExample
from bertjax.tasks.files.splits import STEMS, DataLocation, read_rows
from bertjax.tasks.files.tables import BYTE_ORDER_MARK, TableRow

PARALLEL = (".src", ".tgt")
"""Endings of two parallel files, a text a line: sources, and their targets."""


def read_pairs(
    source: DataLocation,
    split: str,
    *,
    targets: bool,
    texts: tuple[str, str] = ("source", "target"),
) -> list[PairExample]:
    """The examples of a split, from what `read_rows` reads, in the columns `texts`; or from two
    parallel files.

    Tables without a header line have these two columns, unless `source.columns` names others. JSON
    and TFDS have them as fields. Parallel files are train.src and train.tgt and the like, or those
    that `source.files` names. An `id` is that of the table, else the number of the line. Without
    `targets` they may be missing, and the file of them too. Raises `UserError` naming file and line
    for what is missing or no text, where parallel files are not of one length, and for a split
    without a pair.
    """
    if paths := _parallel_files(source, split):
        return _parallel(paths, targets)
    if not source.is_tfds:
        source = replace(
            source, columns=source.columns or texts, header_has=source.header_has or texts
        )
    return [_pair(row, texts, targets) for row in read_rows(source, split)]


def _pair(row: TableRow, texts: tuple[str, str], targets: bool) -> PairExample:
    target = row.value(texts[1]) if targets else row.values.get(texts[1])
    for column, value in zip(texts, (row.value(texts[0]), target), strict=True):
        text = isinstance(value, str) or (value is None and column == texts[1] and not targets)
        check(
            text,
            where=f"{row.where}: {column}",
            found=f"a value of type {type(value).__name__}",
            expected="text",
        )
    return PairExample(str(row.values.get("id", row.number)), row.value(texts[0]), target)


def _parallel_files(source: DataLocation, split: str) -> list[epath.Path]:
    """The file of sources and, where it is there, that of targets; [] where the split has another
    form.
    """
    if source.is_tfds:
        return []
    names = source.files.get(split, ())
    if names:
        return (
            [epath.Path(source.path) / name for name in names]
            if names[0].endswith(PARALLEL[0])
            else []
        )
    for stem in STEMS.get(split, (split,)):
        paths = [epath.Path(source.path) / f"{stem}{ending}" for ending in PARALLEL]
        if paths[0].exists():
            return [path for path in paths if path.exists()]
    return []


def _parallel(paths: list[epath.Path], targets: bool) -> list[PairExample]:
    number, wanted = len(paths), "a file of sources (.src), and one of targets (.tgt)"
    check(
        number == 2 or (number == 1 and not targets),
        where=str(paths[0]),
        found=f"{number} file{'s'[: number - 1]}",
        expected=wanted,
    )
    sources, *others = [list(_lines(str(path))) for path in paths]
    check(sources, where=str(paths[0]), found="no line", expected="one or more")
    for path, lines in zip(paths[1:], others, strict=True):
        check(
            len(lines) == len(sources),
            where=str(path),
            found=f"{len(lines)} lines",
            expected=f"{len(sources)}, as {paths[0]} has",
        )
    pairs = zip(sources, others[0] if others else [None] * len(sources), strict=True)
    return [PairExample(str(line), *pair) for line, pair in enumerate(pairs, 1)]


def _lines(name: str) -> Iterator[str]:
    """The texts, empty ones too. Only a line feed ends one: others that Unicode knows stand within
    texts.
    """
    with opened(name) as file:
        for number, raw in enumerate(file, 1):
            raw = raw.removeprefix(BYTE_ORDER_MARK) if number == 1 else raw
            try:
                yield raw.removesuffix(b"\n").removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                found = f"{name}, line {number}: found the byte 0x{error.object[error.start]:02x}"
                raise UserError(f"{found}, which is not UTF-8, expected UTF-8") from error
