"""The report's plots: metrics over steps, and reliability diagrams."""

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
from bertjax.report.figures import slug

BLUE, ORANGE, GREY = "#3b82f6", "#f59e0b", "#808890"
FAINT = "rgba(59,130,246,0.25)"  # blue
GRID = "rgba(128,128,128,0.2)"  # seen on white and on black
COLOURS = (BLUE, ORANGE, "#10b981", "#ef4444", "#a855f7", "#06b6d4", "#ec4899", "#84cc16")
MAX_MARKERS = 40  # evaluations that are dots too; more would run into each other


@dataclass(frozen=True)
class Plot:
    """One metric's plot over steps."""

    metric: str
    title: str
    unit: str = ""
    ticks: str = ""
    """Format of the ticks, as d3 has them; empty for plotly's own."""
    smooth: bool = True
    """Draw a mean over the training steps, which themselves are faint."""
    log: bool = False
    """Use a logarithmic scale."""
    wide: bool = False
    """Use the width of two plots."""
    optional: bool = False
    """Leave it out where the run has none of the metric."""
    lines: tuple[tuple[str, str], ...] = ()
    """(metric, label) of each line where there are several; else `metric` is the only one."""


STEP_PLOTS = (
    Plot("grad_norm", "Gradient norm, before clipping", ticks="~g", log=True),
    Plot("learning_rate", "Learning rate", ticks="~g", smooth=False),
    Plot("tokens_per_second", "Throughput", unit="tokens a second"),
)
"""Plots of every run."""
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
    """Return Plotly's JavaScript, which stands in the page once, before the plots."""
    return f"<script>{get_plotlyjs()}</script>"


def draw(metrics: Metrics, plots: Sequence[Plot]) -> str:
    """Return the plots as HTML, each in a `div` with the id `plot-METRIC`."""
    panels = []
    for plot in plots:
        traces = _line_traces(plot, metrics) if plot.lines else _metric_traces(plot, metrics)
        if traces or not plot.optional:
            panels.append(_panel(plot, traces, metrics.last_step))
    return "".join(panels)


def reliability(bins: Sequence[Mapping[str, float]], name: str) -> str:
    """Return a reliability diagram (arXiv 1706.04599) as HTML, in a `div` with the id `name`.

    `bins` have `predictions`, `confidence` (their mean probability) and `accuracy`. A bin is a dot,
    larger with more predictions; on the dashed line a model is as sure as it should be.
    """
    confidences: list[float] = []
    accuracies: list[float] = []
    counts: list[int] = []
    for entry in bins:
        if entry["predictions"] > 0:
            confidences.append(entry["confidence"])
            accuracies.append(entry["accuracy"])
            counts.append(int(entry["predictions"]))
    # The area, not the width, goes by the number of predictions.
    sizes = [8 + 14 * (count / max(counts)) ** 0.5 for count in counts]
    dots = go.Scatter(
        x=confidences,
        y=accuracies,
        customdata=counts,
        mode="lines+markers",
        line={"color": BLUE, "width": 1.5},
        marker={"size": sizes, "opacity": 1, "line": {"width": 0}},
        hovertemplate="%{y:.1%} right of %{customdata:,} at %{x:.1%}<extra></extra>",
    )
    ideal = go.Scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dash"}, hoverinfo="skip"
    )
    axis = {"range": [0, 1.04], "tickformat": ".0%", "dtick": 0.2}  # with room for the last label
    xaxis = axis | {"title": "predicted probability"}
    yaxis = axis | {"title": "share right"}
    return _figure_html([ideal, dots], name, xaxis, yaxis, hovermode="closest", showlegend=False)


def _line_traces(plot: Plot, metrics: Metrics) -> list[go.Scatter]:
    """Return the traces of a plot of several metrics, each in its colour.

    Training is dotted; the held-out evaluations have their names in the legend.
    """
    traces = []
    # Not strict: the colors begin anew, without end.
    for (column, label), colour in zip(plot.lines, itertools.cycle(COLOURS), strict=False):
        training = metrics.training(column).finite()
        if len(training.steps):
            dotted = {"color": colour, "width": 1.5, "dash": "dot"}
            name = f"{label}, train"
            traces.append(_trace(training.smoothed(), name, dotted, showlegend=False))
        heldout = metrics.evaluations(column)
        if len(heldout.finite().steps):
            traces.append(_heldout_trace(heldout, label, colour))
    return traces


def _metric_traces(plot: Plot, metrics: Metrics) -> list[go.Scatter]:
    """Return the traces of a plot of one metric: training, held out, and what they compare to."""
    training = metrics.training(plot.metric)
    if plot.metric == "tokens_per_second":
        # Throughput is known of the last step of each logging interval alone.
        training = training.finite()
    traces = []
    if len(training.finite().steps):
        strong = {"color": BLUE, "width": 2}
        if plot.smooth:
            traces.append(_faint_trace(training.thinned()))
            traces.append(_trace(training.smoothed(), "train", strong))
        else:
            traces.append(_trace(training.thinned(), "train", strong))
    heldout = metrics.evaluations(plot.metric)
    if len(heldout.finite().steps):
        traces.append(_heldout_trace(heldout, "held out", ORANGE))
    if plot.metric == "mlm_loss":
        traces += _entropy_traces(metrics)
    return traces


def _faint_trace(curve: Curve) -> go.Scatter:
    line = {"color": FAINT, "width": 1}
    return _trace(curve, "each step", line, hoverinfo="skip", hovertemplate=None, showlegend=False)


def _heldout_trace(curve: Curve, name: str, colour: str) -> go.Scatter:
    mode = "lines+markers" if len(curve.steps) <= MAX_MARKERS else "lines"
    # The nearest evaluation is seldom at the step that the pointer is at.
    hover = "%{y:.4~g} at step %{x:,}"
    return _trace(curve, name, {"color": colour, "width": 2}, mode=mode, hovertemplate=hover)


def _entropy_traces(metrics: Metrics) -> list[go.Scatter]:
    """Return a dashed line: below it a model knows more than how frequent each word is."""
    entropy = metrics.evaluations("unigram_entropy").finite()
    if not len(entropy.steps):
        return []
    ends = Curve(np.array([0, metrics.last_step]), np.repeat(entropy.values[-1], 2))
    return [_trace(ends, "unigram entropy", {"color": GREY, "dash": "dash", "width": 1.5})]


def _trace(curve: Curve, name: str, line: dict[str, Any], **options: Any) -> go.Scatter:
    # Plain rounded lists: plotly's packed binary form of numpy arrays is longer here.
    values = [float(f"{value:.5g}") if np.isfinite(value) else None for value in curve.values]
    mode = "lines" if len(values) > 1 else "markers"  # one point makes no line
    style = {"mode": mode, "hovertemplate": "%{y:.4~g}"} | options
    return go.Scatter(x=curve.steps.astype(int).tolist(), y=values, name=name, line=line, **style)


def _panel(plot: Plot, traces: list[go.Scatter], last_step: int) -> str:
    size = "plot wide" if plot.wide else "plot"
    if traces:
        inside = _over_steps(plot, traces, last_step)
    else:
        inside = '<p class="note">nothing logged yet</p>'
    note = ""
    if any(trace.line.dash == "dot" for trace in traces):
        note = ' <span class="note">dotted: training</span>'
    return f'<div class="{size}"><h2>{html.escape(plot.title)}{note}</h2>{inside}</div>'


def _over_steps(plot: Plot, traces: list[go.Scatter], last_step: int) -> str:
    xaxis = {
        # Ten steps at least, or the axis of a run that has just begun has fractions of steps.
        "range": [0, max(1.01 * last_step, 10)],
        "hoverformat": ",d",
        # d3-format: SI prefixes without trailing zeros, such as 20k.
        "tickformat": "~s",
        "nticks": 8,
    }
    yaxis: dict[str, Any] = {}
    if plot.log:
        # D2: ticks at 2 and 5 beside the powers of ten, for norms that stay within one power.
        yaxis = {"type": "log", "dtick": "D2"}
    yaxis |= {"title": plot.unit or None, "tickformat": plot.ticks}
    name = f"plot-{slug(plot.metric)}"
    legend = len(traces) > 1
    return _figure_html(traces, name, xaxis, yaxis, hovermode="x unified", showlegend=legend)


def _figure_html(
    traces: list[go.Scatter],
    name: str,
    xaxis: dict[str, Any],
    yaxis: dict[str, Any],
    *,
    hovermode: str,
    showlegend: bool,
) -> str:
    figure = go.Figure(traces)
    # Transparent and grey: the page has a light and a dark scheme.
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
        include_plotlyjs=False,  # 4.9 MB, once in the page's head
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
