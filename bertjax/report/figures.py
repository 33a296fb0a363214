"""Figures at the head of a page: a name, a value, and how it is written."""

import html
from typing import NamedTuple

import numpy as np

from bertjax.report.curves import Metrics

NOTHING = "–"
"""Text in place of a value that is not there."""


class Figure(NamedTuple):
    """One figure of a page's head."""

    name: str
    """Its element's id is `figure-NAME`."""
    label: str
    value: float | None
    """None where there is none yet."""
    spec: str
    """Format specification of Python, such as `.1%`."""


def draw_figures(figures: list[Figure]) -> str:
    """Return the figures as HTML, each in a box with its label below it."""
    boxes = []
    for figure in figures:
        text = NOTHING
        if figure.value is not None:
            text = format(figure.value, figure.spec)
        boxes.append(figure_box(figure.name, html.escape(figure.label), text, figure.value))
    return "".join(boxes)


def figure_box(name: str, label: str, text: str, value: float | None) -> str:
    """Return one box; `label` and `text` are HTML, `value` is kept unrounded for programs."""
    data = "" if value is None else f' data-value="{value}"'
    return f'<div class="figure"><b id="figure-{name}"{data}>{text}</b><span>{label}</span></div>'


def run_figures(metrics: Metrics) -> list[Figure]:
    """Return the figures that every run has, last on its page: throughput and skipped updates."""
    rates = metrics.training("tokens_per_second").finite().values
    # The median: a further length of rows or size of batch is compiled within an interval, whose
    # rate is far too low then.
    median = float(np.median(rates)) if len(rates) else None
    return [
        Figure("tokens-per-second", "tokens a second, median", median, ",.0f"),
        Figure("skipped", "skipped updates", metrics.skipped, ",d"),
    ]


def slug(name: str) -> str:
    """Return a name as a part of an element's id."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())
