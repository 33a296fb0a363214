"""A plot of several runs' curves, each a line."""

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from bertjax.report.figures import slug
from bertjax.report.plots import COLOURS, GREY, figure_html


@dataclass(frozen=True)
class Line:
    """A curve of one run."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    is_level: bool = False
    """Whether it is a level to compare with, drawn dashed and grey."""


def draw_lines(name: str, title: str, unit: str, lines: Sequence[Line]) -> str:
    """Return a plot of the lines as HTML, in a `div` with the id `plot-NAME`.

    `unit` is that of the x axis, which begins at 0.
    """
    traces = []
    # Not strict: `cycle` repeats the colours without end.
    for line, colour in zip(lines, itertools.cycle(COLOURS), strict=False):
        style = {"color": colour, "width": 2}
        if line.is_level:
            style = {"color": GREY, "dash": "dash", "width": 1.5}
        traces.append(
            go.Scatter(
                x=list(line.x),
                y=list(line.y),
                name=line.name,
                line=style,
                mode="lines" if line.is_level else "lines+markers",
                hovertemplate="%{y:.4~g}",
            )
        )
    inside = '<p class="note">nothing measured yet</p>'
    if traces:
        xaxis = {"rangemode": "tozero", "title": unit, "tickformat": "~s", "nticks": 8}
        inside = figure_html(
            traces, f"plot-{slug(name)}", xaxis, {}, hovermode="x unified", showlegend=True
        )
    return f'<div class="plot wide"><h2>{html.escape(title)}</h2>{inside}</div>'
