"""Reading of tables (TSV, CSV, JSON lines, XML of RTE) row by row, with the line of each row."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple
from xml.parsers import expat

from etils import epath

from bertjax.errors import UserError, check, mismatch, one_line
from bertjax.storage import OPENERS, opened

BYTE_ORDER_MARK = "\ufeff"
# GLUE too makes two classes of the three (arXiv 1804.07461, section 3.3).
ENTAILMENT = {
    "TRUE": "entailment",
    "YES": "entailment",
    "ENTAILMENT": "entailment",
    "FALSE": "not_entailment",
    "NO": "not_entailment",
    "UNKNOWN": "not_entailment",
    "CONTRADICTION": "not_entailment",
}
"""The label in GLUE for each label of the RTE challenges.

In the XML of the first challenge the label is the attribute `value`, in the later ones it is the
attribute `entailment`.
"""
# Half of a surrogate pair: JSON can express it by an escape, but UTF-8 cannot encode it.
SURROGATE = re.compile("[\ud800-\udfff]")


class TableRow(NamedTuple):
    """One row of a table."""

    file: str
    number: int
    """Line where the row begins, from 1; for TFDS the number of the example, from 0."""
    values: Mapping[str, Any]
    """Value of each column: text, or any value of JSON; None for a label that is not known."""
    unit: str = "line"
    """The unit of `number`: `line`, `example` or `docstring`."""

    @property
    def where(self) -> str:
        """File and line of the row, for error messages."""
        return f"{self.file}, {self.unit} {self.number}"

    def value(self, column: str) -> Any:
        """Return the value of a column; `UserError` with the row's columns if it is missing."""
        if column not in self.values:
            raise UserError(
                f"{self.where}: found the columns {listed(self.values)},"
                f" expected {column!r} among them"
            )
        return self.values[column]


def listed(names: Iterable[object]) -> str:
    """Return the names in one line, separated by commas; `none` if there are no names."""
    return one_line(", ".join(map(str, names))) or "none"


def read_table(
    path: epath.PathLike,
    columns: Sequence[str] = (),
    header_has: Sequence[str] = (),
    ragged: Counter[str] | None = None,
) -> Iterator[TableRow]:
    """Yield the rows of a file, whose ending gives the format; empty lines are left out.

    - `.tsv`, `.txt`: each line is a row, and tabs separate its columns. Quotes are ordinary text,
      as in GLUE's files.
    - `.csv`: read by the csv module with the quoting of RFC 4180. A quoted value may contain commas
      and line ends.
    - `.jsonl`, `.ndjson`, `.json`: each line is a JSON object, and its fields are the columns.
    - `.xml`: pairs of the RTE challenges. The columns are `id`, `sentence1`, `sentence2`, `task`
      and `label` (`entailment` or `not_entailment`; None if the pair has no label).

    The file may be compressed; then .gz, .bz2, .xz or .zst follows the ending. All files are UTF-8.
    A byte order mark is skipped. In TSV and CSV the first line has the names of the columns, unless
    `columns` is given. If both `columns` and `header_has` are given, a first line that has all of
    `header_has` among its cells is still a header. If `ragged` is given, rows with a wrong number
    of columns are left out, and `ragged` counts them by file.

    Raises `UserError`, with file and line, for a wrong number of columns and for invalid UTF-8,
    CSV, JSON or XML. Raises `UserError` also for a file that is missing or has another ending.
    """
    name = str(path)
    plain = epath.Path(path)
    if plain.suffix in OPENERS:
        plain = plain.with_suffix("")
    ending = plain.suffix.lower()
    check(
        ending in SPLITTERS or ending in READERS,
        where=name,
        found=f"the ending {ending!r}",
        expected=f"one of {listed(ENDINGS)}",
    )
    if ending in READERS:
        yield from READERS[ending](name)
    else:
        yield from _with_columns(name, SPLITTERS[ending](name), columns, header_has, ragged)


class Line(NamedTuple):
    """One line of a file."""

    number: int
    """Number of the line, from 1."""
    text: str
    end: str
    """The line end: a line feed, a carriage return and a line feed, or nothing."""


def decoded_lines(path: epath.PathLike) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file, which may be compressed; `UserError` for invalid UTF-8.

    Only a line feed ends a line, because sentences of MNLI contain other line ends of Unicode. A
    byte order mark (`BYTE_ORDER_MARK`) stays in the first line.
    """
    with opened(str(path)) as file:
        for number, raw in enumerate(file, 1):
            content = raw.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield Line(number, content.decode(), raw[len(content) :].decode())
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                raise UserError(
                    f"{path}, line {number}: found the byte 0x{byte:02x}, which is not UTF-8,"
                    " expected UTF-8"
                ) from error


def unmarked_lines(path: epath.PathLike) -> Iterator[Line]:
    """Yield the lines as `decoded_lines` does, but without a byte order mark in the first line."""
    for line in decoded_lines(path):
        if line.number == 1:
            line = line._replace(text=line.text.removeprefix(BYTE_ORDER_MARK))
        yield line


def _split_tsv(name: str) -> Iterator[tuple[int, list[str]]]:
    for line in unmarked_lines(name):
        if line.text:
            # Not by the csv module: quotes are text in GLUE's files, and a row ends at a line feed
            # alone.
            yield line.number, line.text.split("\t")


def _split_csv(name: str) -> Iterator[tuple[int, list[str]]]:
    # The csv module needs the line ends, because quoted values may contain them.
    # strict: without it the csv module takes broken quotes for text.
    reader = csv.reader((line.text + line.end for line in unmarked_lines(name)), strict=True)
    begin = 1
    try:
        for cells in reader:
            if cells:
                yield begin, cells
            # A row may have several lines, so the line cannot be found by counting rows.
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{name}, line {begin}: found broken CSV ({error}), expected quotes that are closed"
        ) from error


def _with_columns(
    name: str,
    lines: Iterator[tuple[int, list[str]]],
    columns: Sequence[str],
    header_has: Sequence[str],
    ragged: Counter[str] | None,
) -> Iterator[TableRow]:
    """Yield a row for each line of cells; `read_table` describes how the columns get names."""
    first = next(lines, None)
    if first is None:
        return
    first_cells = first[1]
    is_header = bool(header_has) and set(header_has) <= set(first_cells)
    if columns and not is_header:
        lines = chain([first], lines)
    else:
        columns = first_cells
    check(
        # Of two columns with one name, a row would keep only the last.
        len(set(columns)) == len(columns),
        where=name,
        found=f"the columns {listed(columns)}",
        expected="each name once",
    )
    for number, cells in lines:
        if len(cells) == len(columns):
            yield TableRow(name, number, dict(zip(columns, cells, strict=True)))
        elif ragged is not None:
            ragged[name] += 1
        else:
            raise mismatch(
                where=f"{name}, line {number}",
                found=f"{len(cells)} columns",
                expected=f"{len(columns)} ({listed(columns)})",
            )


def _read_json(name: str) -> Iterator[TableRow]:
    for number, text, _ in unmarked_lines(name):
        if not text.strip():
            continue
        where = f"{name}, line {number}"
        try:
            values = json.loads(text)
        # Lists nested by the thousand exhaust the parser's recursion.
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{where}: found broken JSON ({error}), expected one object a line"
            ) from error
        check(
            isinstance(values, dict),
            where=where,
            found=f"JSON of type {type(values).__name__}",
            expected="one object a line",
        )
        # This search for an escape is fast, and almost no line has one, so the slow check is rare.
        if "\\ud" in text or "\\uD" in text:
            check(
                not SURROGATE.search(json.dumps(values, ensure_ascii=False)),
                where=where,
                found="half a surrogate pair",
                expected="whole text",
            )
        yield TableRow(name, number, values)


def _read_rte(name: str) -> Iterator[TableRow]:
    with opened(name) as file:
        content = file.read()
    yield from _RteParser(name).parse(content)


class _RteParser:
    """A parser for the XML of the RTE challenges: `<pair>`s of text `<t>` and hypothesis `<h>`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows: list[TableRow] = []
        self._pair: dict[str, Any] = {}
        self._line = 0
        self._text: list[str] = []
        # expat and not ElementTree, which does not tell the line of an element.
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text.append

    def parse(self, content: bytes) -> list[TableRow]:
        """Return the pairs in the content of a file, each with the line where it begins."""
        try:
            self._parser.Parse(content, True)
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise UserError(
                f"{self._name}, line {error.lineno}: found broken XML ({reason}),"
                " expected RTE's pairs"
            ) from error
        return self._rows

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        # Emptied and not replaced: the parser calls the `append` of this very list.
        self._text.clear()
        if tag != "pair":
            return
        self._line = self._parser.CurrentLineNumber
        value = attributes.get("entailment", attributes.get("value"))
        check(
            value is None or value.upper() in ENTAILMENT,
            where=f"{self._name}, line {self._line}",
            found=f"the label {value!r}",
            expected=f"one of {listed(ENTAILMENT)}",
        )
        self._pair = {
            "id": attributes.get("id", str(len(self._rows))),
            "label": None if value is None else ENTAILMENT[value.upper()],
            "task": attributes.get("task", ""),
        }

    def _end(self, tag: str) -> None:
        if tag in ("t", "h"):
            column = "sentence1" if tag == "t" else "sentence2"
            # expat gives a text in several parts. Line ends in it are the file's layout.
            self._pair[column] = " ".join("".join(self._text).split())
        elif tag == "pair":
            check(
                "sentence1" in self._pair and "sentence2" in self._pair,
                where=f"{self._name}, line {self._line}",
                found="a pair without <t> or <h>",
                expected="both",
            )
            self._rows.append(TableRow(self._name, self._line, dict(self._pair)))


SPLITTERS = {".tsv": _split_tsv, ".txt": _split_tsv, ".csv": _split_csv}
"""By ending, the readers of formats whose lines are lists of cells."""
READERS: dict[str, Callable[[str], Iterator[TableRow]]] = {
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".xml": _read_rte,
}
"""By ending, the readers of formats in which each row names its columns."""
ENDINGS = (*SPLITTERS, *READERS)
