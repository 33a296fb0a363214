"""Reading of rows from JSON: an object a line, an array of objects, or such an array in `data`."""

import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from bertjax.errors import check, mismatch, one_line
from bertjax.number_text import MAX_DIGITS
from bertjax.tasks.files.lines import Line, unmarked_lines
from bertjax.tasks.files.row import TableRow, listed

# Half of a surrogate pair: JSON can express it by an escape, but UTF-8 cannot encode it.
SURROGATE = re.compile("[\ud800-\udfff]")
ARRAY_FIELD = "data"
"""The field with the rows, where a file is one object; `datasets` writes and documents this."""


def read_json_rows(name: str, encoding: str) -> Iterator[TableRow]:
    """Yield the objects of a file: one a line, or the items of one array.

    The array is the whole file, or the field `data` of the one object that the file is. Its items
    have no line of their own, so they are numbered.
    """
    lines = (line for line in unmarked_lines(name, encoding) if line.text.strip())
    # Two lines tell whether the file is one object.
    first_lines = list(islice(lines, 2))
    if not first_lines:
        return
    all_lines = chain(first_lines, lines)
    if _is_one_value(first_lines):
        yield from _items(name, all_lines)
        return
    for line in all_lines:
        where = f"{name}, line {line.number}"
        try:
            values = json.loads(line.text)
        # Lists nested by the thousand exhaust the parser's recursion.
        except (ValueError, RecursionError) as error:
            raise mismatch(
                where=where, found=json_fault(error), expected="one object a line"
            ) from error
        _check_row(values, line.text, where, "one object a line")
        yield TableRow(name, line.number, values)


def _is_one_value(first_lines: list[Line]) -> bool:
    """Return whether a file is one JSON value, by its first two lines, or the only one."""
    text = first_lines[0].text.strip()
    # No whole object ends like this. It goes on in the next line, as editors write it.
    if text.startswith("[") or text.endswith(("{", "[", ",")):
        return True
    # A cheap look first: one object is parsed twice here.
    if len(first_lines) > 1 or f'"{ARRAY_FIELD}"' not in text:
        return False
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return _holds_rows(values)


def _items(name: str, lines: Iterator[Line]) -> Iterator[TableRow]:
    expected = f"an array of objects, alone or in the field {ARRAY_FIELD!r}"
    # Without the last line end, after which a file that is cut off would have its mistake.
    text = _joined(lines).rstrip()
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Where a number is too long, Python does not say.
        line = getattr(error, "lineno", 0 if isinstance(error, ValueError) else 1)
        where = f"{name}, line {line}" if line else name
        raise mismatch(where=where, found=json_fault(error), expected=expected) from error
    if _holds_rows(values):
        values = values[ARRAY_FIELD]
    check(
        isinstance(values, list),
        where=name,
        found=f"one object with the fields {listed(values)}",
        expected=f"one object a line, or {expected}",
    )
    # The items' own texts are not known, so all of them are checked if the file has the escape.
    suspicious = text if _has_escaped_half(text) else ""
    for number, item in enumerate(values, 1):
        _check_row(item, suspicious, f"{name}, item {number}", "an object")
        yield TableRow(name, number, item, "item")


def json_fault(error: Exception) -> str:
    """Return what is wrong with a text that `json.loads` refused with this error."""
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        # The one `ValueError` of its own that parsing a text has: Python reads no longer number.
        return f"a number of more than {MAX_DIGITS:,} digits"
    return f"broken JSON ({one_line(error)})"


def _joined(lines: Iterator[Line]) -> str:
    """Return the lines as one text, with empty lines in place of those that were left out."""
    parts = []
    next_number = 1
    for line in lines:
        # So that the line of a mistake is that of the file.
        parts.append("\n" * (line.number - next_number))
        parts.append(line.text + line.end)
        next_number = line.number + 1
    return "".join(parts)


def _holds_rows(values: Any) -> bool:
    """Return whether a value is an object with an array of objects in `ARRAY_FIELD`."""
    rows = values.get(ARRAY_FIELD) if isinstance(values, dict) else None
    return isinstance(rows, list) and all(isinstance(row, dict) for row in rows)


def _check_row(values: Any, text: str, where: str, expected: str) -> None:
    """Raise `UserError` unless `values`, parsed from `text`, is an object of whole text."""
    check(
        isinstance(values, dict),
        where=where,
        found=f"JSON of type {type(values).__name__}",
        expected=expected,
    )
    # This search for an escape is fast, and almost no line has one, so the slow check is rare.
    if _has_escaped_half(text):
        check(
            not SURROGATE.search(json.dumps(values, ensure_ascii=False)),
            where=where,
            found="half a surrogate pair",
            expected="whole text",
        )


def _has_escaped_half(text: str) -> bool:
    return "\\ud" in text or "\\uD" in text
