"""Precision, recall and F1 of each class on a run's page."""

import html
from collections.abc import Mapping
from typing import Any

from bertjax.number_text import number_text
from bertjax.report.fields import field_of
from bertjax.tasks.class_scores import COLUMNS
from bertjax.tasks.error_tables import commonest


def class_scores(scores: Mapping[str, Any], where: str) -> str:
    """Return the table of `bertjax.tasks.class_scores.class_table` as HTML.

    Of many classes the commonest are shown. Raises `UserError` for a field that is missing or of
    another type; `where` names the table.
    """
    classes = field_of(scores, "classes", list, where)
    averages = field_of(scores, "averages", list, where)
    lines = [_Line(line, f"{where}: classes[{n}]") for n, line in enumerate(classes)]
    shown = [lines[number] for number in commonest([line.examples for line in lines])]
    note = ""
    if len(shown) < len(lines):
        note = f'<p class="note">the commonest {len(shown)} of {len(lines):,} classes</p>'
    heads = [f'<th scope="col">{name}</th>' for name in ("", *COLUMNS, "examples")]
    rows = [line.row() for line in shown]
    for number, line in enumerate(averages):
        rows.append(_Line(line, f"{where}: averages[{number}]").row(" average"))
    return f"""<div class="plot"><h2>Classes</h2>{note}<div class="scroll"><table
class="classes"><thead><tr>{"".join(heads)}</tr></thead>{"".join(rows)}</table></div></div>"""


class _Line:
    """A line of the table, with its fields checked."""

    def __init__(self, line: Any, where: str) -> None:
        self.label: str = field_of(line, "label", str, where)
        self.examples: int = field_of(line, "examples", int, where)
        self.values = {name: field_of(line, name, float, where) for name in COLUMNS}

    def row(self, suffix: str = "") -> str:
        """Return the line as HTML; `suffix` follows its label."""
        label = html.escape(self.label + suffix)
        cells = []
        for name, value in self.values.items():
            data = f'data-class="{label}" data-measure="{name}" data-value="{value}"'
            shown = number_text(value, ".1%")
            cells.append(f'<td class="number" {data}>{shown}</td>')
        count = f'<td class="number">{self.examples:,}</td>'
        return f'<tr><th scope="row">{label}</th>{"".join(cells)}{count}</tr>'
