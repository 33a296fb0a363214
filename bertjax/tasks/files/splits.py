"""Splits of a task's data: found in a folder, given by file name, or read from TFDS."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from etils import epath

from bertjax.data.corpus.formats.tfds import tfds_builder
from bertjax.errors import UserError, check, needs_extra, one_line
from bertjax.given_files import place_of
from bertjax.tasks.files import python_docs
from bertjax.tasks.files.lines import UTF8
from bertjax.tasks.files.row import TableRow, listed
from bertjax.tasks.files.tables import FileForm, read_table

TFDS = "tfds:"
PYTHON_DOCS = "python-docs"
STEMS = {"train": ("train",), "validation": ("dev", "validation"), "test": ("test",)}
"""The usual names of the file of each split, without the ending."""
# The hub of Hugging Face names files like this; it has also written a digest at the end.
PART = re.compile(r"-\d{5}-of-(?P<count>\d{5})(-[0-9a-f]{16})?$")


@dataclass(frozen=True)
class DataLocation:
    """The location of a task's data.

    The data has the splits `train`, `validation` and `test`, or parts of these such as
    `validation_matched`.
    """

    path: str
    """A folder; `tfds:NAME[/CONFIG]`; or `python-docs` (see `bertjax.tasks.files.python_docs`)."""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The files of each split, which are joined: names in the folder, or absolute paths.

    For TFDS these are splits of TFDS, such as `train[90%:]`. For a split that is not listed, the
    usual names are used.
    """
    columns: tuple[str, ...] = ()
    """Names of the columns, for files without a header line."""
    header_has: tuple[str, ...] = ()
    """Cells of a header line: even if `columns` is given, a first line with all of them is one."""
    stems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """More names of the file of each split, for folders without a file of a usual name."""
    encoding: str = UTF8
    """The encoding of text files (`bertjax.tasks.files.lines.decoded_lines`)."""
    form: FileForm = "table"
    """The form of the files (`bertjax.tasks.files.tables.read_table`)."""

    @property
    def is_tfds(self) -> bool:
        """True for a data set of TFDS."""
        return self.path.startswith(TFDS)

    def tfds_split(self, split: str) -> str:
        """Return the splits of TFDS, joined, that are the split here, as `finetune.*_files` say."""
        # TFDS joins splits by +: https://www.tensorflow.org/datasets/splits
        return "+".join(self.files.get(split) or (split,))

    @property
    def has_files(self) -> bool:
        """True if the data is in files of a folder."""
        return not self.is_tfds and self.path != PYTHON_DOCS


def find_files(location: DataLocation, split: str) -> list[epath.Path]:
    """Return the files of a split in a folder, one or more, in the order of `location.files`.

    If `location.files` does not list the split, the result is the one file with a usual name:
    train.*, dev.* or validation.*, or test.*. The name of a part of a split is added, as in
    dev_matched.*. Or the file is in parts, train-00000-of-00002.* and so on, and all are there.
    Raises `UserError` with the names that were expected and the files in the folder.
    """
    folder = place_of(location.path)
    given = location.files.get(split)
    try:
        check(
            folder.is_dir(),
            where=location.path,
            found="a file" if folder.exists() else "no such folder",
            expected="a folder",
        )
        # Sorted, as file systems list in any order. Names with a dot first are files of the system
        # or of an editor, not of the data set.
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if given:
            return [_given_file(location, split, name, names) for name in given]
    except OSError as error:
        raise UserError(
            f"{location.path}: cannot be looked into ({error.strerror or error})"
        ) from error
    usual, more = _stems(split), location.stems.get(split, ())
    # The usual names come first, because the folder may have files of another data set with one of
    # the other names.
    for stems in (usual, more):
        matching = [name for name in names if _stem_of(name) in stems]
        check(
            # A guess between two could train on the wrong one.
            len(matching) <= 1 or _are_parts(matching),
            where=f"{location.path}, split {split}",
            found=listed(matching),
            expected=f"one file of {_patterns(stems, ', ')}; or its name in {_option(split)}",
        )
        if matching:
            _check_all_parts(matching, f"{location.path}, split {split}")
            return [folder / name for name in matching]
    raise UserError(
        f"{location.path}, split {split}: found {listed(names)},"
        f" expected {_patterns((*usual, *more), ' or ')} (or {_option(split)} to name it)"
    )


def _given_file(location: DataLocation, split: str, name: str, names: list[str]) -> epath.Path:
    """Return the file `name`; `UserError` with all `names` in the folder if it does not exist."""
    path = place_of(location.path) / name
    check(
        path.exists() and not path.is_dir(),
        where=f"{location.path}, split {split}",
        found=listed(names),
        expected=name,
    )
    return path


def _stem_of(name: str) -> str:
    """Return a file's name up to its first dot, without a number of a part; "" without a dot."""
    # Up to the first dot, as there may be two endings: train.tsv.gz.
    stem, dot, _ = name.partition(".")
    return PART.sub("", stem) if dot else ""


def _are_parts(names: Sequence[str]) -> bool:
    """Return whether the files are parts of one: of the same number of parts, and one ending."""
    kinds = set()
    for name in names:
        stem, _, endings = name.partition(".")
        part = PART.search(stem)
        kinds.add((stem[: part.start()], part["count"], endings) if part else name)
    return len(kinds) == 1


def _check_all_parts(names: Sequence[str], where: str) -> None:
    """Raise `UserError` if the files are parts, and one of them is missing."""
    part = PART.search(names[0].partition(".")[0])
    if part is None:
        return
    count = int(part["count"])
    check(len(names) == count, where=where, found=listed(names), expected=f"all {count} parts")


def _patterns(stems: tuple[str, ...], separator: str) -> str:
    return separator.join(f"{stem}.*" for stem in stems)


def has_split(location: DataLocation, split: str) -> bool:
    """Return whether the split has given files or a file with a usual name.

    Whether the files can be read is not checked.
    """
    if location.files.get(split):
        return True
    if location.is_tfds:
        return split in tfds_builder(location.path).info.splits
    folder = place_of(location.path)
    if not folder.is_dir():
        return False
    stems = (*_stems(split), *location.stems.get(split, ()))
    return any(_stem_of(path.name) in stems for path in folder.iterdir())


def read_rows(
    location: DataLocation,
    split: str,
    ragged: Counter[str] | None = None,
    labels: Sequence[str] = (),
) -> Iterator[TableRow]:
    """Yield the table rows of a split, in the order of the files.

    For `ragged` and `labels` see `read_table`.

    Values from TFDS are converted: text to str, numbers to Python's numbers, and classes to their
    names (-1, a class that is not known, to None). Raises `UserError` as `find_files` and
    `read_table` do, for a TFDS data set that cannot be loaded or does not have the split, and for a
    split without rows.
    """
    if location.path == PYTHON_DOCS:
        table_rows = python_docs.rows(split)
    elif location.is_tfds:
        table_rows = _tfds_rows(location, split)
    else:
        table_rows = _file_rows(location, split, ragged, labels)
    # Rows come one by one, so only their end tells that there was none.
    empty = True
    for row in table_rows:
        empty = False
        yield row
    check(
        not empty,
        where=f"{location.path}, split {split}",
        found="no row",
        expected="one or more",
    )


def _stems(split: str) -> tuple[str, ...]:
    """Return the usual names of a split's file, such as dev_matched for validation_matched."""
    base, separator, part = split.partition("_")
    return tuple(f"{stem}{separator}{part}" for stem in STEMS.get(base, (base,)))


def _option(split: str) -> str:
    """Return the configuration field that names a split's files."""
    return f"finetune.{split.partition('_')[0]}_files"


def _file_rows(
    location: DataLocation, split: str, ragged: Counter[str] | None, labels: Sequence[str]
) -> Iterator[TableRow]:
    for path in find_files(location, split):
        yield from read_table(
            path,
            location.columns,
            location.header_has,
            ragged,
            encoding=location.encoding,
            form=location.form,
            labels=labels,
        )


def _tfds_rows(location: DataLocation, split: str) -> Iterator[TableRow]:
    with needs_extra("data"):
        import tensorflow as tf
        import tensorflow_datasets as tfds

    builder = tfds_builder(location.path)
    chosen = location.tfds_split(split)
    name, number = f"{location.path}, {chosen}", 0
    try:
        # The files are not shuffled, so that each run has the same examples. They are not cached by
        # tf.data, because the data set is read only once.
        dataset = builder.as_dataset(
            split=chosen, shuffle_files=False, read_config=tfds.ReadConfig(try_autocache=False)
        )
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{name}: found the splits {listed(builder.info.splits)}, expected {chosen}"
        ) from error
    try:
        # Files are read only now, one after another, so damage shows here and not above.
        for number, example in enumerate(tfds.as_numpy(dataset)):
            check(
                isinstance(example, dict),
                where=name,
                found=f"examples of type {type(example).__name__}",
                expected="named fields",
            )
            features = builder.info.features
            values = {key: _plain(value, features[key]) for key, value in example.items()}
            yield TableRow(name, number, values, "example")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}, example {number}: found bytes that are not UTF-8, expected UTF-8"
        ) from error
    except tf.errors.OpError as error:
        raise UserError(
            f"{name}, example {number}: is truncated or damaged ({one_line(error.message)})"
        ) from error


def _plain(value: Any, feature: Any) -> Any:
    """Convert a value of TFDS to Python's types; `feature` describes the value."""
    inner = getattr(feature, "feature", feature)  # that of a sequence
    if isinstance(value, dict):
        return {key: _plain(item, inner[key]) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.ndim:
        return [_plain(item, inner) for item in value]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.generic | np.ndarray):
        value = value.item()
    names = getattr(inner, "names", None)
    if names and isinstance(value, int):
        return names[value] if value >= 0 else None
    return value
