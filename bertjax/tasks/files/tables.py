"""Tables of text, a row at a time, each with the line that it stands in: TSV, CSV, JSON lines,
RTE's XML.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple
from xml.parsers import expat

from etils import epath

from bertjax.data.corpus.formats import one_line
from bertjax.errors import UserError, check, mismatch
from bertjax.storage import OPENERS, opened

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ENTAILMENT = {
    "TRUE": "entailment",
    "YES": "entailment",
    "ENTAILMENT": "entailment",
    "FALSE": "not_entailment",
    "NO": "not_entailment",
    "UNKNOWN": "not_entailment",
    "CONTRADICTION": "not_entailment",
}
"""What the RTE challenges call a pair (`value` in the first, `entailment` since), in GLUE's two
labels.
"""


class TableRow(NamedTuple):
    """One row of a table."""

    file: str
    number: int
    """From 1, the line that the row begins in; of a data set of TFDS its example, from 0."""
    values: Mapping[str, Any]
    """By column: text, in tables of text; JSON's values; None where a label is not known."""
    unit: str = "line"

    @property
    def where(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"

    def value(self, column: str) -> Any:
        """The value of a column; `UserError` that names those that there are."""
        if column not in self.values:
            raise UserError(
                f"{self.where}: found the columns {listed(self.values)}, expected {column!r} among them"
            )
        return self.values[column]


def listed(names: Iterable[object]) -> str:
    return one_line(", ".join(map(str, names))) or "none"


def read_table(
    path: epath.PathLike,
    columns: Sequence[str] = (),
    header_has: Sequence[str] = (),
    ragged: Counter[str] | None = None,
) -> Iterator[TableRow]:
    """The rows of a file by its ending, which may be followed by .gz, .bz2 or .xz; empty lines are
    left out.

    - `.tsv`, `.txt`: columns between tabs, a row a line; quotes are text, as in GLUE's files.
    - `.csv`: RFC 4180's quoting, by the csv module; a quoted value may hold commas and line ends.
    - `.jsonl`, `.ndjson`, `.json`: a JSON object a line, its fields the columns.
    - `.xml`: pairs of the RTE challenges, as columns `id`, `sentence1`, `sentence2`, `task` and `label`
      (`entailment`, `not_entailment`; None where the pair has none).

    All are UTF-8, and a byte order mark is skipped. The first line of TSV and CSV names the
    columns, unless `columns` are given; where these are, a first line with all of `header_has` (one
    or more) among its cells is a header nevertheless. Where `ragged` is given, rows with a wrong
    number of columns are left out and counted there by file.

    Raises `UserError` with file and line for another number of columns, bad UTF-8, CSV, JSON or
    XML, and for a file that is missing or has another ending.
    """
    name = str(path)
    plain = (
        epath.Path(path).with_suffix("") if epath.Path(path).suffix in OPENERS else epath.Path(path)
    )
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
        yield from _named(name, SPLITTERS[ending](name), columns, header_has, ragged)


def _lines(name: str) -> Iterator[tuple[int, str]]:
    """Every line with its end, from 1. Only a line feed ends one: MNLI's sentences hold others that
    Unicode knows.
    """
    with opened(name) as file:
        for number, raw in enumerate(file, 1):
            try:
                yield number, (raw.removeprefix(BYTE_ORDER_MARK) if number == 1 else raw).decode()
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                found = f"{name}, line {number}: found the byte 0x{byte:02x}, which is not UTF-8, expected UTF-8"
                raise UserError(found) from error


def _split_tsv(name: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in _lines(name):
        if line := line.removesuffix("\n").removesuffix("\r"):
            yield number, line.split("\t")


def _split_csv(name: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((line for _, line in _lines(name)), strict=True)
    begin = 1
    try:
        for cells in reader:
            if cells:
                yield begin, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{name}, line {begin}: found broken CSV ({error}), expected quotes that are closed"
        ) from error


def _named(
    name: str,
    lines: Iterator[tuple[int, list[str]]],
    columns: Sequence[str],
    header_has: Sequence[str],
    ragged: Counter[str] | None,
) -> Iterator[TableRow]:
    first = next(lines, None)
    if first is None:
        return
    if columns and not (header_has and set(header_has) <= set(first[1])):
        lines = chain([first], lines)
    else:
        columns = first[1]
    check(
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
            wanted = f"{len(columns)} ({listed(columns)})"
            raise mismatch(
                where=f"{name}, line {number}", found=f"{len(cells)} columns", expected=wanted
            )


def _read_json(name: str) -> Iterator[TableRow]:
    for number, line in _lines(name):
        if line.isspace():
            continue
        where = f"{name}, line {number}"
        try:
            values = json.loads(line)
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
        # What JSON spells as half a surrogate pair no file can hold.
        if "\\ud" in line or "\\uD" in line:
            whole = all(
                not 0xD800 <= ord(letter) <= 0xDFFF
                for letter in json.dumps(values, ensure_ascii=False)
            )
            check(whole, where=where, found="half a surrogate pair", expected="whole text")
        yield TableRow(name, number, values)


def _read_rte(name: str) -> Iterator[TableRow]:
    rows: list[TableRow] = []
    values: dict[str, Any] = {}
    text: list[str] = []
    line = 0

    def begin(tag: str, attributes: dict[str, str]) -> None:
        nonlocal line
        text.clear()
        if tag == "pair":
            values.clear()
            line = parser.CurrentLineNumber
            said = attributes.get("entailment", attributes.get("value"))
            known = said is None or said.upper() in ENTAILMENT
            check(
                known,
                where=f"{name}, line {line}",
                found=f"the label {said!r}",
                expected=f"one of {listed(ENTAILMENT)}",
            )
            label = None if said is None else ENTAILMENT[said.upper()]
            values.update(
                id=attributes.get("id", str(len(rows))),
                label=label,
                task=attributes.get("task", ""),
            )

    def end(tag: str) -> None:
        if tag in ("t", "h"):
            values["sentence1" if tag == "t" else "sentence2"] = " ".join("".join(text).split())
        elif tag == "pair":
            both = "sentence1" in values and "sentence2" in values
            check(
                both,
                where=f"{name}, line {line}",
                found="a pair without <t> or <h>",
                expected="both",
            )
            rows.append(TableRow(name, line, dict(values)))

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = (
        begin,
        end,
        text.append,
    )
    with opened(name) as file:
        content = file.read()
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise UserError(
            f"{name}, line {error.lineno}: found broken XML ({reason}), expected RTE's pairs"
        ) from error
    yield from rows


SPLITTERS = {".tsv": _split_tsv, ".txt": _split_tsv, ".csv": _split_csv}
READERS: dict[str, Callable[[str], Iterator[TableRow]]] = {
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".xml": _read_rte,
}
ENDINGS = (*SPLITTERS, *READERS)
