"""Reader of Parquet: each row of the table is a document."""

from collections.abc import Iterator
from typing import Any

from etils import epath

from bertjax.config import DataConfig
from bertjax.data.corpus.formats.decoding import decode
from bertjax.data.corpus.formats.extent import Extent
from bertjax.data.corpus.formats.fields import check_field
from bertjax.data.corpus.formats.long_texts import split_long
from bertjax.errors import UserError, check, one_line


def read_parquet(name: str, config: DataConfig, extent: Extent) -> Iterator[str]:
    # Imported late, in each function: most corpora are not Parquet.
    import pyarrow as pa
    import pyarrow.parquet as pq

    field = config.text_field
    try:
        # By epath, as every file: pyarrow itself reaches stores in another way.
        with epath.Path(name).open("rb") as raw:
            # With these arguments pages are streamed, which takes 2 MB in a file with 57 MB of
            # text. By default the whole column of a row group is held in memory (57 MB).
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
                    where = f"{name}, row {number}"
                    check(
                        value is not None, where=f"{where}, {field}", found="null", expected="text"
                    )
                    yield from split_long(decode(value, config, where))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: cannot be read as Parquet ({one_line(error)})") from error


def _text_type(file: Any, field: str, name: str) -> Any:
    """The Arrow type of a column's values; `UserError` unless it holds text."""
    import pyarrow as pa

    column_type = file.schema_arrow.field(field).type
    if pa.types.is_dictionary(column_type):
        column_type = column_type.value_type
    check(
        column_type in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()),
        where=f"{name}, column {field}",
        found=f"values of type {column_type}",
        expected="text",
    )
    return column_type
