"""Reading of tables whose lines are lists of cells: TSV and CSV."""

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

from bertjax.errors import UserError, check, mismatch
from bertjax.tasks.files.lines import unmarked_lines
from bertjax.tasks.files.row import TableRow, check_columns_differ, listed

CELL_LIMIT = 2**31 - 1
"""Maximum number of characters of a CSV cell; the largest that the csv module can be given on every
system. By default it refuses more than 131,072, and documents are longer."""

log = logging.getLogger("bertjax")


def split_tsv(name: str, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is not empty, with the number of the line."""
    for line in unmarked_lines(name, encoding):
        if line.text:
            # Not by the csv module: quotes are text in GLUE's files, and a row ends at a line feed
            # alone.
            yield line.number, line.text.split("\t")


def split_csv(name: str, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not empty, with the number of its first line."""
    # A setting of the whole process, so it is never made smaller.
    csv.field_size_limit(max(CELL_LIMIT, csv.field_size_limit()))
    # The csv module needs the line ends, because quoted values may contain them.
    # strict: without it the csv module takes broken quotes for text.
    lines = unmarked_lines(name, encoding)
    reader = csv.reader((line.text + line.end for line in lines), strict=True)
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


def with_columns(
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
    _check_no_quotes(first_cells, columns, name)
    if not columns or (header_has and set(header_has) <= set(first_cells)):
        columns = first_cells
    elif _is_header(first_cells, columns, f"{name}, line 1"):
        log.info("%s: its first line has the names of the columns, and is no example", name)
    else:
        lines = chain([first], lines)
    check_columns_differ(columns, name)
    # A line of a single cell may be a text that is the name of its column.
    spellings = _spellings(columns) if len(columns) > 1 else frozenset()
    repeated: list[int] = []
    for number, cells in lines:
        # Few examples begin with the name of a column.
        if cells[0] in spellings and _is_header(cells, columns, f"{name}, line {number}"):
            repeated.append(number)
        elif len(cells) == len(columns):
            yield TableRow(name, number, dict(zip(columns, cells, strict=True)))
        elif ragged is not None:
            ragged[name] += 1
        else:
            raise mismatch(
                where=f"{name}, line {number}",
                found=f"{len(cells)} columns",
                expected=f"{len(columns)} ({listed(columns)})",
            )
    if repeated:
        log.info(
            "%s: lines that repeat the names of the columns, and are no examples: %d (first: line"
            " %d)",
            name,
            len(repeated),
            repeated[0],
        )


def _check_no_quotes(cells: Sequence[str], columns: Sequence[str], name: str) -> None:
    """Raise `UserError` for a header in quotes: those of the other lines would be read as text."""
    if not all(len(cell) > 2 and cell[0] == cell[-1] == '"' for cell in cells):
        return
    check(
        columns and _folded(cells) != _folded(columns),
        where=f"{name}, line 1",
        found=f"a header in quotes, {listed(cells)}",
        expected="names without them, as quotes are text where tabs separate the columns;"
        " a .csv file may have quotes",
    )


def _spellings(names: Sequence[str]) -> frozenset[str]:
    """Return ways in which a header may write its first name: exact texts, as these are fast."""
    ways = []
    for name in names:
        ways += [name, name.lower(), name.upper(), name.capitalize(), name.title()]
    return frozenset([*ways, *(f'"{way}"' for way in ways)])


def _is_header(cells: Sequence[str], columns: Sequence[str], where: str) -> bool:
    """Return whether a line is a header: if it names the columns.

    Capitals, and spaces and quotes around a name, do not matter. Raises `UserError` for the same
    names in another order: one of the two has the columns wrong.
    """
    written, known = _folded(cells), _folded(columns)
    check(
        written == known or sorted(written) != sorted(known),
        where=where,
        found=f"a header with the columns {listed(cells)}",
        expected=f"{listed(columns)}, as finetune.columns or the first line says",
    )
    return written == known


def _folded(names: Sequence[str]) -> list[str]:
    return [folded_name(name) for name in names]


def folded_name(name: str) -> str:
    """Return the name of a column without capitals, and without spaces and quotes around it."""
    return name.strip().strip("\"'").casefold()
