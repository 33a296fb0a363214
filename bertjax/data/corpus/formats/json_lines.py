"""Reader of JSON lines: each object is a document."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from bertjax.config import DataConfig
from bertjax.data.corpus.cleaning import is_blank
from bertjax.data.corpus.formats.decoding import line_name, without_surrogates
from bertjax.data.corpus.formats.extent import Extent
from bertjax.data.corpus.formats.fields import check_field
from bertjax.data.corpus.formats.lines import read_lines
from bertjax.data.corpus.formats.long_texts import split_long
from bertjax.data.corpus.formats.source_file import SourceFile
from bertjax.errors import check, mismatch


def read_jsonl(
    file: SourceFile, config: DataConfig, extent: Extent, counts: Counter[str]
) -> Iterator[str | None]:
    # A part of an object is no JSON, so a line comes whole however long it is.
    for number, line, _ in read_lines(file, config, extent, whole=True):
        if not is_blank(line):
            text = _json_text(line, file.name, config, extent, number)
            if text is None:
                yield None
            else:
                yield from split_long(text, counts)


def _json_text(line: str, name: str, config: DataConfig, extent: Extent, number: int) -> str | None:
    value = _parsed(line, name, extent, number)
    text = value.get(config.text_field) if isinstance(value, dict) else None
    # What is wrong is worked out only here, so that a line without a fault costs no more.
    if not isinstance(text, str):
        if value is None or (
            text is None and isinstance(value, dict) and config.text_field in value
        ):
            return None
        where = line_name(name, extent, number)
        check(
            isinstance(value, dict),
            where=where,
            found=f"JSON of type {type(value).__name__}",
            expected="an object",
        )
        check_field(value, config, where)
        raise mismatch(
            where=f"{where}, {config.text_field}",
            found=f"a value of type {type(text).__name__}",
            expected="text",
        )
    return without_surrogates(text, config, partial(line_name, name, extent, number))


def _parsed(line: str, name: str, extent: Extent, number: int) -> Any:
    try:
        return _loads(line)
    except json.JSONDecodeError as error:
        # Without the library's own number of the line, which is always 1.
        raise mismatch(
            where=line_name(name, extent, number),
            found=f"broken JSON ({error.msg} at character {error.pos + 1})",
            expected="one object a line",
        ) from error
    except RecursionError as error:
        raise mismatch(
            where=line_name(name, extent, number),
            found="JSON that is nested too deeply to be read",
            expected="one object a line",
        ) from error


def _loads(line: str) -> Any:
    """The value of a line of JSON; an integer of thousands of digits makes all integers 0."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # JSON has no longest integer, but Python has (`sys.get_int_max_str_digits`).
        return json.loads(line, parse_int=_no_number)


def _no_number(digits: str) -> int:
    # No number of a line is used.
    return 0
