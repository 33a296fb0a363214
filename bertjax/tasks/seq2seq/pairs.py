"""Reading of pairs of source and target text, from tables or from two parallel files."""

from dataclasses import replace

from etils import epath

from bertjax.errors import check
from bertjax.given_files import place_of
from bertjax.tasks.examples import PairExample
from bertjax.tasks.files.lines import unmarked_lines
from bertjax.tasks.files.row import TableRow
from bertjax.tasks.files.splits import STEMS, DataLocation, read_rows

SOURCE_ENDING, TARGET_ENDING = ".src", ".tgt"
"""Endings of two parallel files; each line of them is a text."""


def read_pairs(
    location: DataLocation,
    split: str,
    *,
    targets: bool,
    texts: tuple[str, str] = ("source", "target"),
) -> list[PairExample]:
    """Return the pairs of a split, from the columns `texts` of a table or from parallel files.

    A table without a header line has these two columns, unless `location.columns` names its
    columns. In JSON and TFDS they are fields. Parallel files have names such as train.src and
    train.tgt, or those in `location.files`. The id comes from the column `id` or else is the number
    of the line. If `targets` is false, the targets or the file of targets may be missing.

    Raises `UserError`, with file and line, for a missing text or a value that is not a text. It is
    also raised if the parallel files have different numbers of lines, and for a split without
    pairs.
    """
    paths = _parallel_files(location, split)
    if paths:
        return _read_parallel(paths, targets, location.encoding)
    if not location.is_tfds:
        columns = location.columns or texts
        location = replace(location, columns=columns, header_has=location.header_has or texts)
    return [_pair(row, texts, targets) for row in read_rows(location, split)]


def _pair(row: TableRow, texts: tuple[str, str], targets: bool) -> PairExample:
    source_column, target_column = texts
    target = row.value(target_column) if targets else row.values.get(target_column)
    source = row.value(source_column)
    _check_text(row, source_column, source)
    if target is not None or targets:
        _check_text(row, target_column, target)
    return PairExample(str(row.values.get("id", row.number)), source, target)


def _check_text(row: TableRow, column: str, value: object) -> None:
    check(
        isinstance(value, str),
        where=f"{row.where}: {column}",
        found=f"a value of type {type(value).__name__}",
        expected="text",
    )


def _parallel_files(location: DataLocation, split: str) -> list[epath.Path]:
    """Return the file of sources and, if it exists, the file of targets.

    The result is [] if the split does not consist of parallel files.
    """
    if location.is_tfds:
        return []
    folder = place_of(location.path)
    names = location.files.get(split, ())
    if names:
        if not names[0].endswith(SOURCE_ENDING):
            return []
        return [folder / name for name in names]
    for stem in STEMS.get(split, (split,)):
        source, target = folder / f"{stem}{SOURCE_ENDING}", folder / f"{stem}{TARGET_ENDING}"
        if source.exists():
            return [source, target] if target.exists() else [source]
    return []


def _read_parallel(paths: list[epath.Path], targets: bool, encoding: str) -> list[PairExample]:
    count = len(paths)
    check(
        count == 2 or (count == 1 and not targets),
        where=str(paths[0]),
        found="1 file" if count == 1 else f"{count} files",
        expected="a file of sources (.src), and one of targets (.tgt)",
    )
    # Empty lines stay: the files belong together line by line.
    sources = [line.text for line in unmarked_lines(paths[0], encoding)]
    check(sources, where=str(paths[0]), found="no line", expected="one or more")
    if count == 1:
        return [PairExample(str(line), source) for line, source in enumerate(sources, 1)]
    target_lines = [line.text for line in unmarked_lines(paths[1], encoding)]
    check(
        len(target_lines) == len(sources),
        where=str(paths[1]),
        found=f"{len(target_lines)} lines",
        expected=f"{len(sources)}, as {paths[0]} has",
    )
    pairs = zip(sources, target_lines, strict=True)
    return [
        PairExample(str(line), source, target) for line, (source, target) in enumerate(pairs, 1)
    ]
