"""Snapshots of databases: the texts of `sql:` sources as Parquet files in the work folder.

A table changes; a snapshot does not. So a preparation that goes on after a kill reads the same
texts, and the manifest's checksum says which ones they were.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from etils import epath

from bertjax.config import Config
from bertjax.config.sql_source import is_sql, without_password
from bertjax.data.corpus import database
from bertjax.data.corpus.sources import Source
from bertjax.data.corpus.work_units import MIN_UNIT_BYTES
from bertjax.data.records.manifest import WORK
from bertjax.errors import check, disk_errors, one_line
from bertjax.json_values import record
from bertjax.progress import Progress
from bertjax.storage import read_json, write_whole, written_whole

FOLDER = "snapshots"


@dataclass(frozen=True)
class Snapshot:
    """Facts about a snapshot, which the manifest keeps."""

    rows: int
    """Rows with a text."""
    null_rows: int
    """Rows with NULL in its place, which are left out."""
    text_bytes: int
    """Bytes of the texts in UTF-8."""
    file_bytes: int
    sha256: str
    """SHA-256 of the Parquet file."""


def take_snapshots(
    config: Config, folder: epath.Path, sources: Sequence[Source], progress: Progress
) -> tuple[list[Source], dict[str, Snapshot]]:
    """Write a snapshot of each `sql` source that has none yet.

    Return the sources with these files in place of the databases, and the facts by source. A
    snapshot that is there is used as it is, and its database not asked. Raises `UserError` for a
    database that cannot be read; nothing is left of its snapshot then.
    """
    # The sources' own names have no password.
    names = {without_password(name): name for name in config.data.corpus if is_sql(name)}
    missing = {
        shown: name
        for shown, name in names.items()
        if not _facts_path(config, folder, shown).exists()
    }
    # All at first: the second URL may be wrong, and the first snapshot take hours.
    for name in missing.values():
        database.check_source(name, config.data)
    for shown, name in missing.items():
        _take(config, folder, shown, name, progress)
    files: list[Source] = []
    snapshots: dict[str, Snapshot] = {}
    for source in sources:
        if source.format == "sql":
            snapshot = _read_facts(config, folder, source.name)
            snapshots[source.name] = snapshot
            path = _parquet_path(config, folder, source.name)
            source = Source(str(path), "parquet", snapshot.text_bytes)
        files.append(source)
    return files, snapshots


def _parquet_path(config: Config, folder: epath.Path, shown: str) -> epath.Path:
    # All that decides on the content of the file, besides the database.
    facts = (shown, config.data.text_field, config.data.encoding_errors)
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    return folder / WORK / FOLDER / f"{name}.parquet"


def _facts_path(config: Config, folder: epath.Path, shown: str) -> epath.Path:
    return _parquet_path(config, folder, shown).with_suffix(".json")


def _take(config: Config, folder: epath.Path, shown: str, name: str, progress: Progress) -> None:
    path = _parquet_path(config, folder, shown)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        snapshot = _write(file, config, name, progress)
        # Inside, so that no file is left.
        check(
            snapshot.text_bytes > 0,
            where=f"data.corpus {one_line(shown)}",
            found=f"{snapshot.rows:,} rows with an empty text and {snapshot.null_rows:,} with NULL",
            expected="at least one row with text",
        )
    # Last, so that a snapshot with this file is whole.
    write_whole(
        _facts_path(config, folder, shown), json.dumps(dataclasses.asdict(snapshot)).encode()
    )


def _write(file: IO[bytes], config: Config, name: str, progress: Progress) -> Snapshot:
    """Write the texts of a source to a Parquet file, a row group for each `MIN_UNIT_BYTES`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    field = config.data.text_field
    schema = pa.schema([(field, pa.string())])
    counted = _CountedFile(file)
    rows = null_rows = text_bytes = 0
    # Texts do not repeat. Statistics would copy the first and the last one into the footer.
    with pq.ParquetWriter(
        counted, schema, compression="zstd", use_dictionary=False, write_statistics=False
    ) as writer:
        for group in _groups(name, config):
            texts = [text for text in group if text is not None]
            writer.write_table(pa.table([pa.array(texts, pa.string())], schema))
            rows += len(texts)
            null_rows += len(group) - len(texts)
            text_bytes += sum(map(len, texts))
            progress("snapshot", rows + null_rows, 0)
    return Snapshot(rows, null_rows, text_bytes, counted.size, counted.digest.hexdigest())


def _groups(name: str, config: Config) -> Iterator[list[bytes | None]]:
    """Yield the texts of a source in UTF-8, about `MIN_UNIT_BYTES` of them together."""
    pending: list[bytes | None] = []
    size = 0
    # Closed at once, so that a full disk does not leave a transaction open.
    with contextlib.closing(database.stream_texts(name, config.data)) as batches:
        for batch in batches:
            for text in batch:
                content = None if text is None else text.encode()
                pending.append(content)
                # An empty text and NULL count too, since the list grows with them.
                size += len(content or b"") + 1
                if size >= MIN_UNIT_BYTES:
                    yield pending
                    pending, size = [], 0
    if pending:
        yield pending


class _CountedFile:
    """A file that is written once from its beginning, with its size and checksum so far."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.size = 0
        self.digest = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        """Write bytes, or a buffer of them."""
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        """Return the position, which is the size so far."""
        return self.size

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()


def _read_facts(config: Config, folder: epath.Path, shown: str) -> Snapshot:
    path = _facts_path(config, folder, shown)
    snapshot = record(Snapshot, read_json(path), str(path))
    parquet = _parquet_path(config, folder, shown)
    size = parquet.stat().length if parquet.exists() else 0
    check(
        size == snapshot.file_bytes,
        where=str(parquet),
        found=f"{size:,} bytes",
        expected=f"{snapshot.file_bytes:,}, as were written (delete {folder / WORK} for a new"
        " snapshot)",
    )
    return snapshot
