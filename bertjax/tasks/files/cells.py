"""Reading of tables whose lines are lists of cells: TSV and CSV."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

from bertjax.errors import UserError, check, mismatch
from bertjax.tasks.files.lines import unmarked_lines
from bertjax.tasks.files.row import TableRow, listed


def split_tsv(name: str) -> Iterator[tuple[int, list[str]]]:
    for line in unmarked_lines(name):
        if line.text:
            # Not by the csv module: quotes are text in GLUE's files, and a row ends at a line feed
            # alone.
            yield line.number, line.text.split("\t")


def split_csv(name: str) -> Iterator[tuple[int, list[str]]]:
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
