"""The pages of the ablation: `report.html` with curves and tables, and `tables.md`."""

import html
from pathlib import Path

import numpy as np

from ablations.forms import FORMS
from ablations.intervals import at_tokens
from ablations.tables import (
    Cells,
    Entries,
    Table,
    bits_tables,
    cells_table,
    equal_tokens,
    forms_table,
    markdown,
    tasks_tables,
)
from bertjax.report.comparison import Line, draw_lines
from bertjax.report.page import page
from bertjax.report.plots import plotly_script


def write_page(folder: Path, entries: Entries) -> None:
    """Write both pages from the results that are there; nothing if no cell is trained."""
    cells = Cells(entries)
    if not cells.forms("train"):
        return
    tables = all_tables(cells)
    tables = {"Forms": forms_table(), **tables}
    text = "\n\n".join(f"### {title}\n\n{markdown(table)}" for title, table in tables.items())
    (folder / "tables.md").write_text(text + "\n")
    (folder / "report.html").write_text(report(cells, tables))


def all_tables(cells: Cells) -> dict[str, Table]:
    """Return the tables that have lines, by title."""
    at_end, at_equal = bits_tables(cells)
    tokens = f"At equal tokens: {equal_tokens(cells):,.0f}"
    tables = {"At equal seconds": at_end, tokens: at_equal, **tasks_tables(cells)}
    return {title: table for title, table in tables.items() if table} | {
        "Cells": cells_table(cells)
    }


def report(cells: Cells, tables: dict[str, Table]) -> str:
    """Return the report as one page of HTML."""
    budget = cells.settings["budget"]
    plots = draw_lines("tokens", "Masked bits per byte over tokens", "tokens", lines(cells, False))
    plots += draw_lines(
        "seconds", "Masked bits per byte over CPU seconds", "CPU seconds", lines(cells, True)
    )
    parts = [
        "<h1>Forms of pretraining</h1>",
        f'<p class="sub">{budget:g} CPU seconds each on one core; held-out text;'
        " of replaced tokens the generator's words</p>",
        f'<div class="plots">{plots}</div>',
    ]
    parts += [table_html(title, table) for title, table in tables.items()]
    return page("Forms of pretraining", "\n".join(parts), plotly_script())


def lines(cells: Cells, over_seconds: bool) -> list[Line]:
    """Return each form's curve: the mean of its seeds, at the points of the first."""
    found = []
    for form in cells.forms("bits"):
        seeds = list(cells.of("bits", form))
        places, _ = cells.curve(form, seeds[0])
        kept, means = [], []
        for place in places:
            own = [at_tokens(*cells.curve(form, seed), place) for seed in seeds]
            sums = [value.sum(0) for value in own if value is not None]
            if sums:
                factor = cells.seconds_per_token(form, seeds[0]) if over_seconds else 1
                kept.append(place * factor)
                means.append(float(np.mean([bits / count for bits, count in sums])))
        found.append(Line(FORMS[form].title, kept, means))
    if cells.frequencies and found:
        ends = [0.0, max(max(line.x) for line in found)]
        level = [cells.frequencies] * 2
        found.append(Line("frequencies of pieces", ends, level, is_level=True))
    return found


def table_html(title: str, table: Table) -> str:
    """Return a table with its title."""
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in table
    )
    return f"<details open><summary>{html.escape(title)}</summary><table>{rows}</table></details>"
