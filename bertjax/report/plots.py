"""The report's plots: training as a faint line with its mean over it, held-out evaluations beside
it.
"""

import html
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from bertjax.report.curves import Curve, Metrics

BLUE, ORANGE, GREY = "#3b82f6", "#f59e0b", "#808890"
FAINT = "rgba(59,130,246,0.25)"
GRID = "rgba(128,128,128,0.2)"  # seen on white and on black
COLOURS = (BLUE, ORANGE, "#10b981", "#ef4444", "#a855f7", "#06b6d4", "#ec4899", "#84cc16")
MAX_MARKERS = 40

Figure = tuple[str, str, float | None, str]
"""A figure of the page's head: id, label, value, and the format that it is shown in."""


@dataclass(frozen=True)
class Plot:
    """One metric's plot; `ticks` is a d3 format, empty for plotly's own."""

    metric: str
    title: str
    unit: str = ""
    ticks: str = ""
    smooth: bool = True
    log: bool = False
    wide: bool = False
    optional: bool = False
    """Left out where the run has none of it."""
    lines: tuple[tuple[str, str], ...] = ()
    """(column, label) of each line where there are several; else `metric` is the only one."""


STEP_PLOTS = (
    Plot("grad_norm", "Gradient norm, before clipping", ticks="~g", log=True),
    Plot("learning_rate", "Learning rate", ticks="~g", smooth=False),
    Plot("tokens_per_second", "Throughput", unit="tokens a second"),
)
"""Of every run."""
PRETRAINING = (
    Plot("mlm_loss", "Masked-word loss", unit="nats", wide=True),
    Plot("mlm_accuracy", "Masked-word accuracy", ticks=".0%"),
    Plot("nsp_loss", "Next-sentence loss", unit="nats", optional=True),
    Plot("nsp_accuracy", "Next-sentence accuracy", ticks=".0%", optional=True),
    Plot("sop_loss", "Sentence-order loss", unit="nats", optional=True),
    Plot("sop_accuracy", "Sentence-order accuracy", ticks=".0%", optional=True),
    *STEP_PLOTS,
    Plot("batch_size", "Batch", unit="rows", smooth=False, optional=True),
    Plot("gradient_noise_scale", "Gradient noise scale", unit="rows", optional=True),
)


def plotly_script() -> str:
    """Plotly's JavaScript, to stand in the page once and before the plots."""
    return f"<script>{get_plotlyjs()}</script>"


def draw(metrics: Metrics, plots: Sequence[Plot]) -> str:
    """The plots as HTML, each in a `div` with the id `plot-METRIC`."""
    traced = [
        (plot, _several(plot, metrics) if plot.lines else _traces(plot, metrics)) for plot in plots
    ]
    shown = [(plot, traces) for plot, traces in traced if traces or not plot.optional]
    return "".join(_panel(plot, traces, metrics.last_step) for plot, traces in shown)


def reliability(bins: Sequence[Mapping[str, float]], name: str) -> str:
    """Bins' mean probability against the share that is right, a dot by how many predictions it has;
    id `name`.

    As in arXiv 1706.04599: what is on the dashed line is as sure as it should be.
    """
    some = [one for one in bins if one["predictions"] > 0]
    most = max((one["predictions"] for one in some), default=1)
    dots = go.Scatter(
        x=[one["confidence"] for one in some],
        y=[one["accuracy"] for one in some],
        customdata=[int(one["predictions"]) for one in some],
        mode="lines+markers",
        line={"color": BLUE, "width": 1.5},
        marker={
            "size": [8 + 14 * (one["predictions"] / most) ** 0.5 for one in some],
            "opacity": 1,
            "line": {"width": 0},
        },
        hovertemplate="%{y:.1%} right of %{customdata:,} at %{x:.1%}<extra></extra>",
    )
    ideal = go.Scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dash"}, hoverinfo="skip"
    )
    unit = {"range": [0, 1.04], "tickformat": ".0%", "dtick": 0.2}  # with room for the last label
    xaxis, yaxis = unit | {"title": "predicted probability"}, unit | {"title": "share right"}
    return _svg([ideal, dots], name, xaxis, yaxis, hovermode="closest", showlegend=False)


def _several(plot: Plot, metrics: Metrics) -> list[go.Scatter]:
    """A colour a line: training dotted, and held-out evaluations, which have their names in the
    legend.
    """
    traces = []
    for (column, label), colour in zip(plot.lines, itertools.cycle(COLOURS), strict=False):
        every, heldout = metrics.training(column), metrics.evaluations(column)
        if len(every.known().steps):
            dotted = {"color": colour, "width": 1.5, "dash": "dot"}
            traces.append(
                _trace(every.known().smoothed(), f"{label}, train", dotted, showlegend=False)
            )
        if len(heldout.known().steps):
            traces.append(_heldout(heldout, label, colour))
    return traces


def _traces(plot: Plot, metrics: Metrics) -> list[go.Scatter]:
    every, heldout = metrics.training(plot.metric), metrics.evaluations(plot.metric)
    if plot.metric == "tokens_per_second":
        every = every.known()  # throughput stands on the last step of each logging interval alone
    strong = {"color": BLUE, "width": 2}
    traces = []
    if len(every.known().steps):
        if plot.smooth:
            faint = {"color": FAINT, "width": 1}
            traces.append(
                _trace(
                    every.thinned(),
                    "each step",
                    faint,
                    hoverinfo="skip",
                    hovertemplate=None,
                    showlegend=False,
                )
            )
            traces.append(_trace(every.smoothed(), "train", strong))
        else:
            traces.append(_trace(every.thinned(), "train", strong))
    if len(heldout.known().steps):
        traces.append(_heldout(heldout, "held out", ORANGE))
    if plot.metric == "mlm_loss":
        traces += _entropy(metrics)
    return traces


def _heldout(curve: Curve, name: str, colour: str) -> go.Scatter:
    mode = "lines+markers" if len(curve.steps) <= MAX_MARKERS else "lines"
    at = "%{y:.4~g} at step %{x:,}"  # the nearest evaluation, seldom the step pointed at
    return _trace(curve, name, {"color": colour, "width": 2}, mode=mode, hovertemplate=at)


def _entropy(metrics: Metrics) -> list[go.Scatter]:
    """The dashed line below which a model knows more than how frequent each word is."""
    known = metrics.evaluations("unigram_entropy").known()
    if not len(known.steps):
        return []
    ends = Curve(np.array([0, metrics.last_step]), np.repeat(known.values[-1], 2))
    return [_trace(ends, "unigram entropy", {"color": GREY, "dash": "dash", "width": 1.5})]


def _trace(curve: Curve, name: str, line: dict[str, Any], **options: Any) -> go.Scatter:
    # Plain rounded lists: plotly's packed binary form of numpy arrays is longer here.
    values = [float(f"{value:.5g}") if np.isfinite(value) else None for value in curve.values]
    mode = "lines" if len(values) > 1 else "markers"  # one point makes no line
    style = {"mode": mode, "hovertemplate": "%{y:.4~g}"} | options
    return go.Scatter(x=curve.steps.astype(int).tolist(), y=values, name=name, line=line, **style)


def _panel(plot: Plot, traces: list[go.Scatter], last_step: int) -> str:
    size = "plot wide" if plot.wide else "plot"
    inside = (
        _over_steps(plot, traces, last_step) if traces else '<p class="note">nothing logged yet</p>'
    )
    dotted = (
        ' <span class="note">dotted: training</span>'
        if any(t.line.dash == "dot" for t in traces)
        else ""
    )
    return f'<div class="{size}"><h2>{html.escape(plot.title)}{dotted}</h2>{inside}</div>'


def _over_steps(plot: Plot, traces: list[go.Scatter], last_step: int) -> str:
    steps = {
        "range": [0, max(1.01 * last_step, 10)],
        "hoverformat": ",d",
        "tickformat": "~s",
        "nticks": 8,
    }
    scale = {"type": "log", "dtick": "D2"} if plot.log else {}
    values = scale | {"title": plot.unit or None, "tickformat": plot.ticks}
    legend = len(traces) > 1
    return _svg(
        traces, f"plot-{slug(plot.metric)}", steps, values, hovermode="x unified", showlegend=legend
    )


def slug(name: str) -> str:
    """A name as a part of an element's id."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def _svg(
    traces: list[go.Scatter],
    name: str,
    xaxis: dict[str, Any],
    yaxis: dict[str, Any],
    *,
    hovermode: str,
    showlegend: bool,
) -> str:
    figure = go.Figure(traces)
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True}
    figure.update_layout(
        height=300,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "size": 12},
        showlegend=showlegend,
        legend={"orientation": "h", "y": 1.0, "x": 1.0, "xanchor": "right", "yanchor": "bottom"},
        hovermode=hovermode,
        xaxis=axis | xaxis,
        yaxis=axis | yaxis,
    )
    return plotly.io.to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
