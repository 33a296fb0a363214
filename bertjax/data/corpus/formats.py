"""How each format of corpus is read: a document's text at a time, bad input named by file and line."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from etils import epath

from bertjax.config import DataConfig
from bertjax.data.corpus import python_docs
from bertjax.errors import UserError, check, mismatch, needs_extra
from bertjax.storage import opened

LONGEST = (
    1 << 20
)  # characters of a document; a longer one is read as several, so that memory is bounded
BLOCK = 1 << 20
NEWLINE = b"\n"
Stretch = tuple[
    int, int
]  # first byte and byte after the last, -1: the end; of Parquet row groups, of TFDS examples


def _lines(
    name: str, config: DataConfig, stretch: Stretch, *, whole: bool = False
) -> Iterator[tuple[int, str, bool]]:
    """(number, text, ends) of each line, `BLOCK` bytes read at a time.

    A line longer than a block comes in parts, `ends` False on all but the last; `whole`: never.
    Numbers count from the stretch's beginning; `_line` makes them the file's.
    """
    begin, end = stretch
    number, left = 1, end - begin if end >= 0 else -1
    carry: list[bytes] = []
    with opened(name) as file:
        if begin:
            file.seek(begin)
        while True:
            block = file.read(BLOCK if left < 0 else min(BLOCK, left))
            left -= len(block) if left > 0 else 0
            last = not block
            if block and whole and NEWLINE not in block:
                carry.append(block)
                continue
            data = b"".join([*carry, block])
            carry.clear()
            cut = len(data) if last else _cut(data, whole)
            if cut < len(data):
                carry.append(data[cut:])
            text = _decode(memoryview(data)[:cut], config, name, stretch, number)
            del data, block  # a line may be half a gigabyte: no copy is kept that is not needed
            *lines, rest = text.split("\n")
            del text
            for line in lines:
                yield number, line.removesuffix("\r"), True
                number += 1
            if rest:
                yield number, rest, last
            if last:
                return


def _cut(data: bytes, whole: bool) -> int:
    """Where to part a block: after its last line; where it has none, after its last space; else
    between characters.
    """
    cut = data.rfind(NEWLINE) + 1
    if cut or whole or len(data) < BLOCK:
        return cut
    cut = data.rfind(b" ") + 1
    if not cut:
        cut = len(data) - 1
        while cut > len(data) - 4 and data[cut] & 0xC0 == 0x80:
            cut -= 1
    return cut


def _decode(
    raw: bytes | memoryview,
    config: DataConfig,
    name: str,
    stretch: Stretch = (0, -1),
    line: int = 0,
) -> str:
    """Text of `raw`, whose first line is line `line` of the stretch; 0: it has no lines to name."""
    try:
        return str(
            raw, "utf-8-sig" if line == 1 and not stretch[0] else "utf-8", config.encoding_errors
        )
    except UnicodeDecodeError as error:
        before, byte = error.object[: error.start], error.object[error.start]
        where = _line(name, stretch, line + before.count(NEWLINE)) if line else name
        found = f"the byte 0x{byte:02x}, which is not UTF-8"
        raise UserError(
            f"{where}: found {found}, expected UTF-8 (or data.encoding_errors replace)"
        ) from error


def _line(name: str, stretch: Stretch, number: int) -> str:
    """The name of a stretch's line; what stands before the stretch is counted now that it is asked
    for.
    """
    left = stretch[0]
    if left:
        with opened(name) as file:
            while left > 0 and (block := file.read(min(BLOCK, left))):
                number += block.count(NEWLINE)
                left -= len(block)
    return f"{name}, line {number}"


def _in_parts(text: str) -> Iterator[str]:
    """A text longer than `LONGEST` in several, cut at an empty line, a line's end or a space."""
    begin = 0
    while len(text) - begin > LONGEST:
        end = begin + LONGEST
        found = (text.rfind(mark, begin + LONGEST // 2, end) for mark in ("\n\n", "\n", " "))
        end = next((at + 1 for at in found if at >= 0), end)
        yield text[begin:end]
        begin = end
    yield text[begin:] if begin else text


def one_line(text: object, most: int = 300) -> str:
    return " ".join(str(text).split())[:most]


def _check_field(
    names: Iterable[object], config: DataConfig, where: str, kind: str = "fields"
) -> None:
    found = one_line(", ".join(map(str, names))) or "none"
    check(
        config.text_field in names,
        where=where,
        found=f"the {kind} {found}",
        expected=f"data.text_field {config.text_field!r}",
    )


def _read_bert(name: str, config: DataConfig, stretch: Stretch) -> Iterator[str]:
    document: list[str] = []
    size = 0
    for _, line, ends in _lines(name, config, stretch):
        blank = ends and not line.strip()
        if document and (blank or size > LONGEST):
            yield "\n".join(document)
            document, size = [], 0
        if not blank:
            document.append(line)
            size += len(line)
    yield "\n".join(document)


def _read_file(name: str, config: DataConfig, stretch: Stretch) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for _, line, _ in _lines(name, config, stretch):
        lines.append(line)
        size += len(line)
        if size > LONGEST:
            yield "\n".join(lines)
            lines, size = [], 0
    yield "\n".join(lines)


def _read_line(name: str, config: DataConfig, stretch: Stretch) -> Iterator[str]:
    for _, line, _ in _lines(name, config, stretch):
        yield line


def _read_jsonl(name: str, config: DataConfig, stretch: Stretch) -> Iterator[str]:
    for number, line, _ in _lines(name, config, stretch, whole=True):
        if line and not line.isspace():
            yield from _in_parts(_json_text(line, name, config, stretch, number))


def _json_text(line: str, name: str, config: DataConfig, stretch: Stretch, number: int) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        where = _line(name, stretch, number)
        raise UserError(
            f"{where}: found broken JSON ({error}), expected one object a line"
        ) from error
    text = value.get(config.text_field) if isinstance(value, dict) else None
    if not isinstance(text, str):
        where = _line(name, stretch, number)
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
    assert isinstance(text, str)
    # Half a surrogate pair, which JSON can spell and no file can hold, is rare: its place is asked
    # for late.
    return text if text.isascii() else _whole(text, config, name, stretch, number)


def _whole(text: str, config: DataConfig, name: str, stretch: Stretch, number: int) -> str:
    r"""`text`, or an error where JSON's \ud800 gave half a surrogate pair, which no file could hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"half a surrogate pair, \\u{ord(text[error.start]):04x}"
        where = _line(name, stretch, number)
        check(
            config.encoding_errors == "replace",
            where=where,
            found=found,
            expected="whole text (or data.encoding_errors replace)",
        )
        return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    return text


def _read_parquet(name: str, config: DataConfig, stretch: Stretch) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    field = config.text_field
    try:
        with epath.Path(name).open("rb") as raw:
            # So pages stream (2 MB); by default a row group's whole column is held (57 MB of 57).
            file = pq.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
            _check_field(file.schema_arrow.names, config, name, "columns")
            kind = file.schema_arrow.field(field).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            text = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
            check(
                kind in text,
                where=f"{name}, column {field}",
                found=f"values of type {kind}",
                expected="text",
            )
            begin, end = stretch
            groups = range(file.num_row_groups)[begin : end if end >= 0 else None]
            row = sum(file.metadata.row_group(i).num_rows for i in range(begin))
            for batch in file.iter_batches(batch_size=64, columns=[field], row_groups=list(groups)):
                # As bytes: pyarrow does not check that its strings are UTF-8.
                for value in batch.column(0).cast(kind).cast(pa.large_binary()).to_pylist():
                    row += 1
                    where = f"{name}, row {row}"
                    check(
                        value is not None, where=f"{where}, {field}", found="null", expected="text"
                    )
                    yield from _in_parts(_decode(value, config, where))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: cannot be read as Parquet ({one_line(error)})") from error


def tfds_builder(name: str) -> Any:
    with needs_extra("data"):
        import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name.removeprefix("tfds:"))
        builder.download_and_prepare()
        return builder
    except Exception as error:
        # TFDS and its downloader raise whatever their parts raise; the first line says what, lists
        # follow.
        reason = one_line(str(error).strip().partition("\n")[0])
        raise UserError(f"{name}: cannot be loaded ({type(error).__name__}: {reason})") from error


def tfds_bytes(name: str) -> int:
    """The size of a TFDS data set, downloaded if need be; `UserError` where it cannot be loaded."""
    return int(tfds_builder(name).info.dataset_size)


def _tfds_spec(builder: Any, stretch: Stretch) -> str:
    """The examples of a stretch, all splits counted through, as TFDS names them; `all` takes no
    bounds.
    """
    begin, end = stretch
    said, before = [], 0
    for split, info in sorted(builder.info.splits.items()):
        low = max(begin - before, 0)
        high = info.num_examples if end < 0 else min(end - before, info.num_examples)
        if low < high:
            said.append(f"{split}[{low}:{high}]")
        before += info.num_examples
    return "+".join(said)


def _read_tfds(name: str, config: DataConfig, stretch: Stretch) -> Iterator[str]:
    with needs_extra("data"):
        import tensorflow as tf
        import tensorflow_datasets as tfds

    builder = tfds_builder(name)
    # Without autocache, which holds any data set below 250 MB in memory.
    streamed = tfds.ReadConfig(try_autocache=False)
    number = stretch[0]
    try:
        dataset = builder.as_dataset(
            split=_tfds_spec(builder, stretch), shuffle_files=False, read_config=streamed
        )
        for example in tfds.as_numpy(dataset):
            where = f"{name}, example {number}"
            _check_field(example if isinstance(example, dict) else (), config, where)
            value = example[config.text_field]
            found = f"a value of type {type(value).__name__}"
            check(
                isinstance(value, bytes),
                where=f"{where}, {config.text_field}",
                found=found,
                expected="text",
            )
            yield from _in_parts(_decode(value, config, where))
            number += 1
    except tf.errors.OpError as error:
        raise UserError(
            f"{name}, example {number}: is truncated or damaged ({one_line(error.message)})"
        ) from error


def _read_python_docs(name: str, config: DataConfig, stretch: Stretch) -> Iterator[str]:
    yield from python_docs.documents()


READERS: dict[str, Callable[[str, DataConfig, Stretch], Iterator[str]]] = {
    "bert": _read_bert,
    "file": _read_file,
    "line": _read_line,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "tfds": _read_tfds,
    "python-docs": _read_python_docs,
}
"""By `Source.format`: the texts of a stretch of a source. Empty ones are the caller's to leave out."""
