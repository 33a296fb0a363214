"""Readers for each corpus format: they yield one text at a time; errors name the file and line."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from etils import epath

from bertjax.config import DataConfig
from bertjax.data.corpus import python_docs
from bertjax.errors import UserError, check, mismatch, needs_extra, one_line
from bertjax.storage import opened

# A longer document is read as several documents, so that memory is bounded.
MAX_DOCUMENT_CHARACTERS = 1 << 20
BLOCK_BYTES = 1 << 20
# Bytes may be searched for it, and for a space: in UTF-8 no other character has a byte of ASCII in
# it (RFC 3629, section 1).
NEWLINE = b"\n"


class Extent(NamedTuple):
    """The part of a source to read, in bytes (in Parquet: row groups; in TFDS: examples)."""

    begin: int = 0
    end: int = -1
    """Position after the last byte of the part; -1 means the end of the source."""


WHOLE = Extent()


def _lines(
    name: str, config: DataConfig, extent: Extent, *, whole: bool = False
) -> Iterator[tuple[int, str, bool]]:
    """(number, text, ends) of each line, read in blocks of `BLOCK_BYTES`.

    A line longer than a block is yielded in parts, and `ends` is True only for the last part. With
    `whole`, lines are never divided. Line numbers count from the start of the extent; `_line_name`
    converts them to line numbers of the file.
    """
    # Bytes are read and not text, since an extent is in bytes, and a bad byte must be named by its
    # line.
    number = 1
    # Bytes left to read. A negative value means "to the end of the file", and it does not change.
    left = extent.end - extent.begin if extent.end >= 0 else -1
    carry: list[bytes] = []
    with opened(name) as file:
        if extent.begin:
            file.seek(extent.begin)
        while True:
            # With no bytes left to read it returns nothing, which counts as the end.
            block = file.read(BLOCK_BYTES if left < 0 else min(BLOCK_BYTES, left))
            if left > 0:
                left -= len(block)
            last = not block
            if block and whole and NEWLINE not in block:
                carry.append(block)
                continue
            data = b"".join([*carry, block])
            carry.clear()
            end = len(data) if last else _block_end(data, whole)
            if end < len(data):
                carry.append(data[end:])
            text = _decode(memoryview(data)[:end], config, name, extent, number)
            # A line may have half a gigabyte, so each copy is deleted as soon as possible.
            del data, block
            # Not `splitlines`, which splits at U+2028 too: a JSON string may hold that as it is
            # (RFC 8259, section 7).
            *lines, rest = text.split("\n")
            del text
            for line in lines:
                yield number, line.removesuffix("\r"), True
                number += 1
            if rest:
                yield number, rest, last
            if last:
                return


def _block_end(data: bytes, whole: bool) -> int:
    """The number of bytes of a block to use now.

    The block is cut after the last newline. If it has no newline, it is cut after the last space;
    if it has no space either, between two characters.
    """
    end = data.rfind(NEWLINE) + 1
    # With less than a block, the line's end may come next: the bytes wait for more.
    if end or whole or len(data) < BLOCK_BYTES:
        return end
    end = data.rfind(b" ") + 1
    if not end:
        end = len(data) - 1
        # Bytes 10xxxxxx continue a UTF-8 character; a character has at most three such bytes.
        while end > len(data) - 4 and data[end] & 0xC0 == 0x80:
            end -= 1
    return end


def _decode(
    raw: bytes | memoryview,
    config: DataConfig,
    name: str,
    extent: Extent = WHOLE,
    line: int = 0,
) -> str:
    """The text of `raw`, whose first line is line `line` of the extent; 0 means no line number."""
    at_file_start = line == 1 and extent.begin == 0
    try:
        # "utf-8-sig" drops a byte order mark, which can stand only at the start of a file.
        return str(raw, "utf-8-sig" if at_file_start else "utf-8", config.encoding_errors)
    except UnicodeDecodeError as error:
        before, byte = error.object[: error.start], error.object[error.start]
        where = _line_name(name, extent, line + before.count(NEWLINE)) if line else name
        raise mismatch(
            where=where,
            found=f"the byte 0x{byte:02x}, which is not UTF-8",
            expected="UTF-8 (or data.encoding_errors replace)",
        ) from error


def _line_name(name: str, extent: Extent, number: int) -> str:
    """The file name and the line number in the file, for line `number` of an extent.

    Only error messages need it, so the lines before the extent are not counted until then.
    """
    left = extent.begin
    if left:
        with opened(name) as file:
            while left > 0 and (block := file.read(min(BLOCK_BYTES, left))):
                number += block.count(NEWLINE)
                left -= len(block)
    return f"{name}, line {number}"


def _split_long(text: str) -> Iterator[str]:
    """The text in parts of at most `MAX_DOCUMENT_CHARACTERS`; a shorter text is one part."""
    begin = 0
    while len(text) - begin > MAX_DOCUMENT_CHARACTERS:
        end = _part_end(text, begin)
        yield text[begin:end]
        begin = end
    yield text[begin:] if begin else text


def _part_end(text: str, begin: int) -> int:
    """The end of the part that starts at `begin`.

    The part ends at the last empty line within the limit, else at the last line end, else at the
    last space.
    """
    limit = begin + MAX_DOCUMENT_CHARACTERS
    for separator in ("\n\n", "\n", " "):
        # The search covers only the second half of the part, so that no part is very short.
        position = text.rfind(separator, begin + MAX_DOCUMENT_CHARACTERS // 2, limit)
        if position >= 0:
            return position + 1
    return limit


def _check_field(
    names: Iterable[object], config: DataConfig, where: str, kind: str = "fields"
) -> None:
    listed = one_line(", ".join(map(str, names))) or "none"
    check(
        config.text_field in names,
        where=where,
        found=f"the {kind} {listed}",
        expected=f"data.text_field {config.text_field!r}",
    )


def _read_bert(name: str, config: DataConfig, extent: Extent) -> Iterator[str]:
    document: list[str] = []
    size = 0
    for _, line, ends in _lines(name, config, extent):
        # A part of a long line may be white space alone without being a blank line.
        blank = ends and not line.strip()
        if document and (blank or size > MAX_DOCUMENT_CHARACTERS):
            # Lines stay lines: in this format each is a sentence.
            yield "\n".join(document)
            document, size = [], 0
        if not blank:
            document.append(line)
            size += len(line)
    yield "\n".join(document)


def _read_file(name: str, config: DataConfig, extent: Extent) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for _, line, _ in _lines(name, config, extent):
        lines.append(line)
        size += len(line)
        if size > MAX_DOCUMENT_CHARACTERS:
            yield "\n".join(lines)
            lines, size = [], 0
    yield "\n".join(lines)


def _read_line(name: str, config: DataConfig, extent: Extent) -> Iterator[str]:
    for _, line, _ in _lines(name, config, extent):
        yield line


def _read_jsonl(name: str, config: DataConfig, extent: Extent) -> Iterator[str]:
    # A part of an object is no JSON, so a line comes whole however long it is.
    for number, line, _ in _lines(name, config, extent, whole=True):
        if line and not line.isspace():
            yield from _split_long(_json_text(line, name, config, extent, number))


def _json_text(line: str, name: str, config: DataConfig, extent: Extent, number: int) -> str:
    try:
        value = json.loads(line)
    # Thousands of nested lists exhaust the parser's recursion.
    except (ValueError, RecursionError) as error:
        where = _line_name(name, extent, number)
        raise UserError(
            f"{where}: found broken JSON ({error}), expected one object a line"
        ) from error
    text = value.get(config.text_field) if isinstance(value, dict) else None
    # What is wrong is worked out only here, so that a line without a fault costs no more.
    if not isinstance(text, str):
        where = _line_name(name, extent, number)
        check(
            isinstance(value, dict),
            where=where,
            found=f"JSON of type {type(value).__name__}",
            expected="an object",
        )
        _check_field(value, config, where)
        raise mismatch(
            where=f"{where}, {config.text_field}",
            found=f"a value of type {type(text).__name__}",
            expected="text",
        )
    # ASCII text, the common case, has no surrogates. `isascii` is fast: it reads a flag.
    return text if text.isascii() else _without_surrogates(text, config, name, extent, number)


def _without_surrogates(
    text: str, config: DataConfig, name: str, extent: Extent, number: int
) -> str:
    r"""`text` with U+FFFD in place of each unpaired surrogate; `UserError` if that is not allowed.

    JSON can express an unpaired surrogate (such as \ud800), but UTF-8 cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        check(
            config.encoding_errors == "replace",
            where=_line_name(name, extent, number),
            found=f"half a surrogate pair, \\u{ord(text[error.start]):04x}",
            expected="whole text (or data.encoding_errors replace)",
        )
        return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    return text


def _read_parquet(name: str, config: DataConfig, extent: Extent) -> Iterator[str]:
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
            _check_field(file.schema_arrow.names, config, name, "columns")
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
                    yield from _split_long(_decode(value, config, where))
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


def tfds_builder(name: str) -> Any:
    """The builder of `tfds:NAME`, after its data was downloaded and prepared.

    Raises `UserError` if it cannot be loaded.
    """
    with needs_extra("data"):
        import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name.removeprefix("tfds:"))
        builder.download_and_prepare()
        return builder
    except Exception as error:
        # TFDS and its downloader let errors of any type through. The first line of the message says
        # what is wrong; the lines after it list data sets.
        reason = one_line(str(error).strip().partition("\n")[0])
        raise UserError(f"{name}: cannot be loaded ({type(error).__name__}: {reason})") from error


def tfds_bytes(name: str) -> int:
    """The size in bytes of a TFDS data set; raises `UserError` as `tfds_builder` does."""
    return int(tfds_builder(name).info.dataset_size)


def _tfds_split(builder: Any, extent: Extent) -> str:
    """The examples of an extent in TFDS's notation for splits.

    Examples are counted through all splits, which are sorted by name. TFDS's split `all` cannot be
    used, because it takes no bounds.
    """
    slices: list[str] = []
    before = 0
    for split, info in sorted(builder.info.splits.items()):
        low = max(extent.begin - before, 0)
        high = info.num_examples
        if extent.end >= 0:
            high = min(extent.end - before, high)
        if low < high:
            slices.append(f"{split}[{low}:{high}]")
        before += info.num_examples
    return "+".join(slices)


def _read_tfds(name: str, config: DataConfig, extent: Extent) -> Iterator[str]:
    with needs_extra("data"):
        import tensorflow as tf
        import tensorflow_datasets as tfds

    builder = tfds_builder(name)
    # No autocache: it would hold every data set below 250 MB in memory.
    streamed = tfds.ReadConfig(try_autocache=False)
    number = extent.begin
    try:
        dataset = builder.as_dataset(
            # Not shuffled, because `number` and the extent count examples in file order.
            split=_tfds_split(builder, extent),
            shuffle_files=False,
            read_config=streamed,
        )
        for example in tfds.as_numpy(dataset):
            where = f"{name}, example {number}"
            # A data set of a single feature may give examples that are no dict.
            _check_field(example if isinstance(example, dict) else (), config, where)
            value = example[config.text_field]
            check(
                # TensorFlow's strings are bytes of any encoding.
                isinstance(value, bytes),
                where=f"{where}, {config.text_field}",
                found=f"a value of type {type(value).__name__}",
                expected="text",
            )
            yield from _split_long(_decode(value, config, where))
            number += 1
    except tf.errors.OpError as error:
        raise UserError(
            f"{name}, example {number}: is truncated or damaged ({one_line(error.message)})"
        ) from error


def _read_python_docs(name: str, config: DataConfig, extent: Extent) -> Iterator[str]:
    yield from python_docs.documents()


READERS: dict[str, Callable[[str, DataConfig, Extent], Iterator[str]]] = {
    "bert": _read_bert,
    "file": _read_file,
    "line": _read_line,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "tfds": _read_tfds,
    "python-docs": _read_python_docs,
}
"""Functions that yield the texts of an extent, by `Source.format`. The caller drops empty texts."""
