"""Figures at the head of a page: a name, a value, and how it is written."""

import html
from typing import NamedTuple

import numpy as np

from bertjax.number_text import number_text
from bertjax.report.curves import Metrics

NOTHING = "–"
"""Text in place of a missing value."""


class Figure(NamedTuple):
    """One figure of a page's head."""

    name: str
    """The id of the figure's element is `figure-NAME`."""
    label: str
    value: float | None
    """None if there is no value yet."""
    spec: str
    """Format specification of Python, such as `.1%`."""


def draw_figures(figures: list[Figure]) -> str:
    """Return the figures as HTML, each in a box with its label below it."""
    boxes = []
    for figure in figures:
        text = NOTHING
        if figure.value is not None:
            text = number_text(figure.value, figure.spec)
        boxes.append(figure_box(figure.name, html.escape(figure.label), text, figure.value))
    return "".join(boxes)


def figure_box(name: str, label: str, text: str, value: float | None) -> str:
    """Return one box; `label` and `text` are HTML, the unrounded `value` is for programs."""
    data = "" if value is None else f' data-value="{value}"'
    return f'<div class="figure"><b id="figure-{name}"{data}>{text}</b><span>{label}</span></div>'


def run_figures(metrics: Metrics) -> list[Figure]:
    """Return the last figures, which every run has: throughput and skipped updates."""
    rates = metrics.training("tokens_per_second").finite().values
    # The median, because the rate is far too low in a logging interval in which another row length
    # or batch size was compiled.
    median = float(np.median(rates)) if len(rates) else None
    return [
        Figure("tokens-per-second", "tokens a second, median", median, ",.0f"),
        Figure("skipped", "skipped updates", metrics.skipped, ",d"),
    ]


def slug(name: str) -> str:
    """Return a name in the form that it has in an element's id."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())
