"""Reading of rows from Parquet, as `datasets`, pandas and the hub of Hugging Face write it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from etils import epath

from bertjax.errors import UserError, check, mismatch, one_line
from bertjax.file_kinds import HEAD_BYTES, kind_of
from bertjax.given_files import check_is_no_pipe
from bertjax.storage import is_compressed
from bertjax.tasks.files.row import TableRow, check_columns_differ

BATCH_ROWS = 1024
"""Number of rows that are converted to Python's types at once."""


def read_parquet_rows(name: str) -> Iterator[TableRow]:
    """Yield the rows of a file, numbered from 1; null is None.

    `datasets` stores classes as numbers and their names in the file's metadata. Where a column has
    such names, its values are the names (-1, a class that is not known, becomes None).
    """
    # Imported late: most tasks have no Parquet.
    import pyarrow as pa

    check(
        not is_compressed(name),
        where=name,
        found="compressed Parquet",
        expected="the file itself, since Parquet is not read from its beginning",
    )
    check_is_no_pipe(epath.Path(name))
    try:
        with epath.Path(name).open("rb") as raw:
            yield from _rows(raw, name)
    except (pa.ArrowException, OSError) as error:
        _check_kind(name, error)
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"{name}: cannot be read as Parquet ({reason})") from error


def _rows(raw: IO[bytes], name: str) -> Iterator[TableRow]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(raw)
    columns = file.schema_arrow.names
    check_columns_differ(columns, name)
    class_names = _class_names(file.schema_arrow.metadata or {})
    number = 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS):
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError as error:
            raise mismatch(
                where=f"{name}, rows {number + 1} to {number + batch.num_rows}",
                found="bytes that are not UTF-8 in a column of text",
                expected="UTF-8",
            ) from error
        for values in rows:
            number += 1
            for column, names in class_names.items():
                if column in values:
                    where = f"{name}, row {number}: {column}"
                    values[column] = _named(values[column], names, where)
            yield TableRow(name, number, values, "row")


def _check_kind(name: str, error: Exception) -> None:
    """Raise `UserError` with the kind of the file, if its first bytes are those of another one."""
    path = epath.Path(name)
    if not path.exists() or path.is_dir():
        return
    with path.open("rb") as file:
        kind = kind_of(file.read(HEAD_BYTES))
    if kind and kind.ending != ".parquet":
        raise mismatch(where=name, found=kind.name, expected="Parquet") from error


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, Sequence[str]]:
    """Return the names of the classes by column, from the metadata that `datasets` writes."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    # Metadata of another program or another version: then there are no names.
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    class_names: dict[str, Sequence[str]] = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        # A list of classes has the description of its items in `feature`, or is a list itself.
        while isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        names = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, list) and names:
            class_names[column] = [str(name) for name in names]
    return class_names


def _named(value: Any, names: Sequence[str], where: str) -> Any:
    """Return the names for numbers of classes, also in lists; None for -1."""
    if isinstance(value, list):
        return [_named(item, names, where) for item in value]
    if value == -1:
        return None
    if not isinstance(value, int):
        return value
    check(
        0 <= value < len(names),
        where=where,
        found=f"the class {value}",
        expected=f"0 to {len(names) - 1}, as the file has {len(names)} names of classes",
    )
    return names[value]
