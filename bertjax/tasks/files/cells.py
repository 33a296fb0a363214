"""Reading of tables whose lines are lists of cells: TSV and CSV."""

import csv
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from bertjax.errors import UserError, check, mismatch
from bertjax.tasks.files.column_names import ColumnNames, Lines, folded_name
from bertjax.tasks.files.lines import unmarked_lines
from bertjax.tasks.files.row import TableRow, check_columns_differ, listed

CELL_LIMIT = 2**31 - 1
"""Maximum number of characters of a CSV cell; the largest that the csv module can be given on every
system. By default it refuses more than 131,072, and documents are longer."""

log = logging.getLogger("bertjax")


def split_tsv(name: str, encoding: str) -> Lines:
    """Yield the cells of each line that is not empty, with the number of the line."""
    for line in unmarked_lines(name, encoding):
        if line.text:
            # Not by the csv module: quotes are text in GLUE's files, and a row ends at a line feed
            # alone.
            yield line.number, line.text.split("\t")


def split_csv(name: str, encoding: str) -> Lines:
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
    read: Callable[[], Lines],
    columns: Sequence[str],
    header_has: Sequence[str],
    ragged: Counter[str] | None,
    labels: Sequence[str] = (),
) -> Iterator[TableRow]:
    """Yield a row for each line of cells; `read_table` describes how the columns get names.

    `read` returns the lines; it may be called again.
    """
    lines = read()
    first = next(lines, None)
    if first is None:
        return
    first_cells = first[1]
    _check_no_quotes(first_cells, columns, name)
    has_names = not columns or (bool(header_has) and set(header_has) <= set(first_cells))
    if has_names:
        columns = first_cells
    names = ColumnNames(columns, labels, read)
    if not has_names and names.is_header(first_cells, f"{name}, line 1"):
        log.info("%s: its first line has the names of the columns, and is no example", name)
    elif not has_names:
        lines = chain([first], lines)
    check_columns_differ(columns, name)
    spellings = names.spellings
    repeated: list[int] = []
    for number, cells in lines:
        # Few examples begin with the name of a column.
        if cells[0] in spellings and names.is_header(cells, f"{name}, line {number}"):
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
        columns and list(map(folded_name, cells)) != list(map(folded_name, columns)),
        where=f"{name}, line 1",
        found=f"a header in quotes, {listed(cells)}",
        expected="names without them, as quotes are text where tabs separate the columns; write"
        " the file without quotes (in R: quote=FALSE, row.names=FALSE), or as .csv with commas",
    )
