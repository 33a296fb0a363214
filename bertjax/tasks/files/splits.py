"""The splits of a task's data: files of a folder, files by name, or a data set of TFDS."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from etils import epath

from bertjax.data.corpus.formats import tfds_builder
from bertjax.errors import UserError, check, needs_extra, one_line
from bertjax.tasks.files import python_docs
from bertjax.tasks.files.tables import TableRow, listed, read_table

TFDS = "tfds:"
PYTHON_DOCS = "python-docs"
STEMS = {"train": ("train",), "validation": ("dev", "validation"), "test": ("test",)}
"""The usual names of a split's file, without the ending."""


@dataclass(frozen=True)
class DataLocation:
    """The location of a task's data.

    Its splits are `train`, `validation` and `test`, and parts of them such as
    `validation_matched`.
    """

    path: str
    """A folder; `tfds:NAME[/CONFIG]`; or `python-docs` (`bertjax.tasks.files.python_docs`)."""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The files of each split in the folder (or anywhere, by an absolute path), which are joined.

    For TFDS they are its own splits, such as `train[90%:]`. A split that is not listed has its
    usual name.
    """
    columns: tuple[str, ...] = ()
    """Names of the columns of files without a header line."""
    header_has: tuple[str, ...] = ()
    """A first line with all of these is a header even if there are `columns`; empty: none is."""
    stems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """More names of a split's file, for folders with none of the usual ones."""

    @property
    def is_tfds(self) -> bool:
        """True for a data set of TFDS."""
        return self.path.startswith(TFDS)


def find_files(location: DataLocation, split: str) -> list[epath.Path]:
    """Return the files of a split in a folder, one or more, in the order given.

    If none are given it is the one file called train.*, dev.* or validation.*, or test.*; a part of
    a split adds its name, as in dev_matched.*. Raises `UserError` with what was looked for and what
    there is.
    """
    folder = epath.Path(location.path)
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
    # The usual names first: a folder may hold files of another data set under the others.
    for stems in (usual, more):
        # Up to the first dot, as there may be two endings: train.tsv.gz.
        matching = [name for name in names if name.partition(".")[0] in stems and "." in name]
        check(
            # A guess between two could train on the wrong one.
            len(matching) <= 1,
            where=f"{location.path}, split {split}",
            found=listed(matching),
            expected=f"one file of {_patterns(stems, ', ')}; or its name in {_option(split)}",
        )
        if matching:
            return [folder / matching[0]]
    raise UserError(
        f"{location.path}, split {split}: found {listed(names)},"
        f" expected {_patterns((*usual, *more), ' or ')} (or {_option(split)} to name it)"
    )


def _given_file(location: DataLocation, split: str, name: str, names: list[str]) -> epath.Path:
    """Return the file of that name; `UserError` with the folder's `names` if there is none."""
    path = epath.Path(location.path) / name
    check(
        path.exists() and not path.is_dir(),
        where=f"{location.path}, split {split}",
        found=listed(names),
        expected=name,
    )
    return path


def _patterns(stems: tuple[str, ...], separator: str) -> str:
    return separator.join(f"{stem}.*" for stem in stems)


def has_split(location: DataLocation, split: str) -> bool:
    """Return whether there is such a split, by its usual name or by given ones.

    That it can be read is not checked.
    """
    if location.files.get(split):
        return True
    if location.is_tfds:
        return split in tfds_builder(location.path).info.splits
    folder = epath.Path(location.path)
    if not folder.is_dir():
        return False
    stems = (*_stems(split), *location.stems.get(split, ()))
    return any(path.name.partition(".")[0] in stems and path.suffix for path in folder.iterdir())


def read_rows(
    location: DataLocation, split: str, ragged: Counter[str] | None = None
) -> Iterator[TableRow]:
    """Yield the table rows of a split, in the order of the files; `ragged` as in `read_table`.

    Of TFDS, text is str, numbers are Python's, and classes have their names, None for one that is
    not known (-1). Raises `UserError` as `find_files` and `read_table` do, for a data set that
    cannot be loaded or has no such split, and for a split without a row.
    """
    if location.path == PYTHON_DOCS:
        table_rows = python_docs.rows(split)
    elif location.is_tfds:
        table_rows = _tfds_rows(location, split)
    else:
        table_rows = _file_rows(location, split, ragged)
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
    """Return the usual names of a split's file: dev_matched and the like for validation_matched."""
    base, separator, part = split.partition("_")
    return tuple(f"{stem}{separator}{part}" for stem in STEMS.get(base, (base,)))


def _option(split: str) -> str:
    """Return the configuration field that names a split's files."""
    return f"finetune.{split.partition('_')[0]}_files"


def _file_rows(
    location: DataLocation, split: str, ragged: Counter[str] | None
) -> Iterator[TableRow]:
    for path in find_files(location, split):
        yield from read_table(path, location.columns, location.header_has, ragged)


def _tfds_rows(location: DataLocation, split: str) -> Iterator[TableRow]:
    with needs_extra("data"):
        import tensorflow as tf
        import tensorflow_datasets as tfds

    builder = tfds_builder(location.path)
    # TFDS joins splits by +: https://www.tensorflow.org/datasets/splits
    chosen = "+".join(location.files.get(split) or (split,))
    name, number = f"{location.path}, {chosen}", 0
    try:
        # In the order of the files, so that runs have the same examples; not cached by tf.data, as
        # the set is read once.
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
    """Return a value of TFDS in Python's types; `feature` describes it."""
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
