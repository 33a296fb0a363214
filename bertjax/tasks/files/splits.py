"""Where the splits of a task's data are: a folder, files by name, or a data set of TFDS."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from etils import epath

from bertjax.data.corpus.formats import one_line, tfds_builder
from bertjax.errors import UserError, check
from bertjax.tasks.files import python_docs
from bertjax.tasks.files.tables import TableRow, listed, read_table

TFDS = "tfds:"
PYTHON_DOCS = "python-docs"
STEMS = {"train": ("train",), "validation": ("dev", "validation"), "test": ("test",)}
"""What the files of a split are called, without their ending."""


@dataclass(frozen=True)
class DataLocation:
    """The data of a task. Splits are `train`, `validation`, `test`, and parts such as
    `validation_matched`.
    """

    path: str
    """A folder; `tfds:NAME[/CONFIG]`; or `python-docs` (`bertjax.tasks.files.python_docs`)."""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By split, files in `place` (or anywhere, by a whole path), which are joined; of TFDS its own
    splits, such as `train[90%:]`. A split that is not named is looked for by its usual name.
    """
    columns: tuple[str, ...] = ()
    """Names of the columns of files without a header line."""
    header_has: tuple[str, ...] = ()
    """A first line with all of these is a header even where there are `columns`; empty: none is."""
    stems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """More names of a split's file, looked for where there is none of the usual ones."""

    @property
    def is_tfds(self) -> bool:
        return self.path.startswith(TFDS)


def find_files(source: DataLocation, split: str) -> list[epath.Path]:
    """The files of a split in a folder, one or more, in the order given.

    Without names given it is the one file called train.*, dev.* or validation.*, or test.*; a part
    of a split adds its name, as in dev_matched.*. Raises `UserError` that says what was looked for
    and what there is.
    """
    folder = epath.Path(source.path)
    try:
        check(
            folder.is_dir(),
            where=source.path,
            found="a file" if folder.exists() else "no such folder",
            expected="a folder",
        )
        shown = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if named := source.files.get(split):
            paths = [folder / name for name in named]
            for name, path in zip(named, paths, strict=True):
                check(
                    path.exists() and not path.is_dir(),
                    where=f"{source.path}, split {split}",
                    found=listed(shown),
                    expected=name,
                )
            return paths
    except OSError as error:
        raise UserError(
            f"{source.path}: cannot be looked into ({error.strerror or error})"
        ) from error
    for stems in (_stems(split), source.stems.get(split, ())):
        found = [name for name in shown if name.partition(".")[0] in stems and "." in name]
        more = f"one file of {', '.join(f'{stem}.*' for stem in stems)}; or its name in {_option(split)}"
        check(
            len(found) <= 1,
            where=f"{source.path}, split {split}",
            found=listed(found),
            expected=more,
        )
        if found:
            return [folder / found[0]]
    wanted = " or ".join(f"{stem}.*" for stem in (*_stems(split), *source.stems.get(split, ())))
    raise UserError(
        f"{source.path}, split {split}: found {listed(shown)}, expected {wanted} (or {_option(split)} to name it)"
    )


def has_split(source: DataLocation, split: str) -> bool:
    """Whether there is such a split, by its usual name or by names given; whether it can be read is
    not asked.
    """
    if source.files.get(split):
        return True
    if source.is_tfds:
        return split in tfds_builder(source.path).info.splits
    stems = (*_stems(split), *source.stems.get(split, ()))
    folder = epath.Path(source.path)
    return folder.is_dir() and any(
        path.name.partition(".")[0] in stems and path.suffix for path in folder.iterdir()
    )


def read_rows(
    source: DataLocation, split: str, ragged: Counter[str] | None = None
) -> Iterator[TableRow]:
    """The rows of a split, in the order of the files; `ragged` as in `read_table`.

    Of TFDS, text is str, numbers are Python's, and classes have their names, None where they are
    not known (-1). Raises `UserError` for what `find_files` and `read_table` raise it for, for a
    data set that cannot be loaded or has no such split, and for a split without a row.
    """
    if source.path == PYTHON_DOCS:
        rows = python_docs.rows(split)
    else:
        rows = _tfds_rows(source, split) if source.is_tfds else _file_rows(source, split, ragged)
    first = next(rows, None)
    check(
        first is not None,
        where=f"{source.path}, split {split}",
        found="no row",
        expected="one or more",
    )
    assert first is not None
    yield first
    yield from rows


def _stems(split: str) -> tuple[str, ...]:
    kind, part, name = split.partition("_")
    return tuple(f"{stem}{part}{name}" for stem in STEMS.get(kind, (kind,)))


def _option(split: str) -> str:
    return f"finetune.{split.partition('_')[0]}_files"


def _file_rows(source: DataLocation, split: str, ragged: Counter[str] | None) -> Iterator[TableRow]:
    for path in find_files(source, split):
        yield from read_table(path, source.columns, source.header_has, ragged)


def _tfds_rows(source: DataLocation, split: str) -> Iterator[TableRow]:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    builder = tfds_builder(source.path)
    chosen = "+".join(source.files.get(split) or (split,))
    name, number = f"{source.path}, {chosen}", 0
    try:
        dataset = builder.as_dataset(
            split=chosen, shuffle_files=False, read_config=tfds.ReadConfig(try_autocache=False)
        )
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{name}: found the splits {listed(builder.info.splits)}, expected {chosen}"
        ) from error
    try:
        for number, example in enumerate(tfds.as_numpy(dataset)):
            check(
                isinstance(example, dict),
                where=name,
                found=f"examples of type {type(example).__name__}",
                expected="named fields",
            )
            values = {
                key: _plain(value, builder.info.features[key]) for key, value in example.items()
            }
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
    """A value of TFDS in Python's types."""
    inner = getattr(feature, "feature", feature)  # that of a sequence
    if isinstance(value, dict):
        return {key: _plain(item, inner[key]) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.ndim:
        return [_plain(item, inner) for item in value]
    if isinstance(value, bytes):
        return value.decode()
    value = value.item() if isinstance(value, np.generic | np.ndarray) else value
    names = getattr(inner, "names", None)
    if names and isinstance(value, int):
        return names[value] if value >= 0 else None
    return value
