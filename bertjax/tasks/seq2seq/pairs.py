"""Pairs of a source text and its target, from tables or from two parallel files."""

from dataclasses import replace

from etils import epath

from bertjax.errors import check
from bertjax.tasks.examples import PairExample
from bertjax.tasks.files.splits import STEMS, DataLocation, read_rows
from bertjax.tasks.files.tables import TableRow, unmarked_lines

SOURCE_ENDING, TARGET_ENDING = ".src", ".tgt"
"""Endings of two parallel files, each with a text a line."""


def read_pairs(
    location: DataLocation,
    split: str,
    *,
    targets: bool,
    texts: tuple[str, str] = ("source", "target"),
) -> list[PairExample]:
    """Return the pairs of a split, from the columns `texts` of a table or from parallel files.

    Tables without a header line have these two columns, unless `location.columns` names others.
    JSON and TFDS have them as fields. Parallel files are train.src and train.tgt and the like, or
    those that `location.files` names. The id is the table's, or else the number of the line.
    Without `targets` these may be missing, and their file too.

    Raises `UserError` naming file and line for what is missing or no text, if parallel files are
    not of one length, and for a split without a pair.
    """
    paths = _parallel_files(location, split)
    if paths:
        return _read_parallel(paths, targets)
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
    """Return the file of sources and, if it is there, that of targets.

    [] if the split has another form.
    """
    if location.is_tfds:
        return []
    folder = epath.Path(location.path)
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


def _read_parallel(paths: list[epath.Path], targets: bool) -> list[PairExample]:
    count = len(paths)
    check(
        count == 2 or (count == 1 and not targets),
        where=str(paths[0]),
        found="1 file" if count == 1 else f"{count} files",
        expected="a file of sources (.src), and one of targets (.tgt)",
    )
    # Empty lines stay: the files belong together line by line.
    sources = [line.text for line in unmarked_lines(paths[0])]
    check(sources, where=str(paths[0]), found="no line", expected="one or more")
    if count == 1:
        return [PairExample(str(line), source) for line, source in enumerate(sources, 1)]
    target_lines = [line.text for line in unmarked_lines(paths[1])]
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
