"""Reader of Parquet: each row of the table is a document."""

from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from bertjax.config import DataConfig
from bertjax.data.corpus.formats.decoding import decode
from bertjax.data.corpus.formats.extent import Extent
from bertjax.data.corpus.formats.fields import check_field
from bertjax.data.corpus.formats.long_texts import split_long
from bertjax.data.corpus.formats.source_file import SourceFile
from bertjax.errors import UserError, check, mismatch, one_line
from bertjax.file_kinds import HEAD_BYTES, kind_of


def read_parquet(
    file: SourceFile, config: DataConfig, extent: Extent, counts: Counter[str]
) -> Iterator[str | None]:
    """Yield the texts of an extent of a file, and None for each null."""
    # Imported late, in each function: most corpora are not Parquet.
    import pyarrow as pa

    check(
        not file.is_stream,
        where=file.name,
        found="compressed Parquet, or Parquet in a compressed archive",
        expected="the file itself, since Parquet is not read from its beginning",
    )
    # By epath, as every file: pyarrow itself reaches stores in another way.
    with file.opened() as raw:
        head = raw.read(HEAD_BYTES)
        raw.seek(0)
        try:
            yield from _read_rows(raw, file.name, config, extent, counts)
        except (pa.ArrowException, OSError) as error:
            kind = kind_of(head)
            if kind and kind.ending != ".parquet":
                raise mismatch(where=file.name, found=kind.name, expected="Parquet") from error
            raise UserError(
                f"{file.name}: cannot be read as Parquet ({one_line(error)})"
            ) from error


def _read_rows(
    raw: IO[bytes], name: str, config: DataConfig, extent: Extent, counts: Counter[str]
) -> Iterator[str | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    field = config.text_field
    # With these arguments pages are streamed, which takes 2 MB in a file with 57 MB of text. By
    # default the whole column of a row group is held in memory (57 MB).
    file = pq.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
    check_field(file.schema_arrow.names, config, name, "columns")
    column_type = _text_type(file, field, name)
    all_groups = range(file.num_row_groups)
    groups = all_groups[extent.begin : extent.end if extent.end >= 0 else None]
    groups_before = all_groups[: extent.begin]
    number = sum(file.metadata.row_group(i).num_rows for i in groups_before)
    # Few rows at a time, since each value may be as large as a document.
    for batch in file.iter_batches(batch_size=64, columns=[field], row_groups=list(groups)):
        # Cast to bytes, because pyarrow does not check that its strings are valid UTF-8.
        values = batch.column(0).cast(column_type).cast(pa.large_binary())
        for value in values.to_pylist():
            number += 1
            if value is None:
                yield None
            else:
                yield from split_long(decode(value, config, f"{name}, row {number}"), counts)


def _text_type(file: Any, field: str, name: str) -> Any:
    """The Arrow type of a column's values; `UserError` unless it holds text."""
    import pyarrow as pa

    column_type = file.schema_arrow.field(field).type
    if pa.types.is_dictionary(column_type):
        column_type = column_type.value_type
    text_types = [pa.string(), pa.large_string(), pa.string_view()]
    text_types += [pa.binary(), pa.large_binary(), pa.binary_view()]
    check(
        # A column of nulls alone has a type of its own.
        column_type in [*text_types, pa.null()],
        where=f"{name}, column {field}",
        found=f"values of type {column_type}",
        expected="text",
    )
    return column_type
