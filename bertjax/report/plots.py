"""The report's plots: metrics over steps, and reliability diagrams."""

import dataclasses
import html
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from bertjax.number_text import number_text
from bertjax.report.curves import Curve, Metrics
from bertjax.report.figures import slug

BLUE, ORANGE, GREY = "#3b82f6", "#f59e0b", "#808890"
FAINT = "rgba(59,130,246,0.25)"  # blue
GRID = "rgba(128,128,128,0.2)"  # visible on white and on black
COLOURS = (BLUE, ORANGE, "#10b981", "#ef4444", "#a855f7", "#06b6d4", "#ec4899", "#84cc16")
MAX_MARKERS = 40  # with more evaluations no dots are drawn, since they would overlap


@dataclass(frozen=True)
class Plot:
    """A plot over steps, of one metric or of several."""

    metric: str
    title: str
    unit: str = ""
    ticks: str = ""
    """Format of the ticks in d3's notation; empty for plotly's own format."""
    smooth: bool = True
    """Draw the training steps in a faint line, and over it their moving mean."""
    log: bool = False
    """Use a logarithmic scale."""
    wide: bool = False
    """Use the width of two plots."""
    optional: bool = False
    """Leave the plot out if the run has no value of the metric."""
    lines: tuple[tuple[str, str], ...] = ()
    """(metric, label) of each line; empty if `metric` itself is the only one."""


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
    Plot("detection_loss", "Loss of replaced tokens", unit="nats", optional=True),
    Plot("detection_accuracy", "Accuracy of replaced tokens", ticks=".0%", optional=True),
    Plot("detection_precision", "Precision of replaced tokens", ticks=".0%", optional=True),
    Plot("detection_recall", "Recall of replaced tokens", ticks=".0%", optional=True),
    *STEP_PLOTS,
    Plot("batch_size", "Batch", unit="rows", smooth=False, optional=True),
    Plot("gradient_noise_scale", "Gradient noise scale", unit="rows", optional=True),
)
DISTILLATION = (
    Plot("loss", "Loss, all terms with their weights", wide=True),
    Plot("soft_loss", "Soft targets", unit="nats", optional=True),
    Plot("cosine_loss", "1 - cosine of the last hidden states", optional=True),
    Plot("embedding_loss", "Embeddings, squared difference", optional=True),
    Plot("hidden_loss", "Hidden states, squared difference", optional=True),
    Plot("attention_loss", "Attention scores, squared difference", optional=True),
    Plot("relation_loss", "Relations", unit="nats", optional=True),
    # A student need not learn masked words.
    *(dataclasses.replace(plot, optional=True, wide=False) for plot in PRETRAINING),
)


def plotly_script() -> str:
    """Return Plotly's JavaScript, which a page has once, before the plots."""
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

    Each of `bins` has `predictions` (their number), `confidence` (their mean probability) and
    `accuracy`. It is drawn as a dot, which is larger for more predictions. On the dashed line
    accuracy equals confidence.
    """
    confidences: list[float] = []
    accuracies: list[float] = []
    counts: list[int] = []
    for entry in bins:
        if entry["predictions"] > 0:
            confidences.append(entry["confidence"])
            accuracies.append(entry["accuracy"])
            counts.append(int(entry["predictions"]))
    # The root, because a dot's area, not its width, shows the number of predictions.
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
    axis = {"range": [0, 1.04], "tickformat": ".0%", "dtick": 0.2}  # with space for the last label
    xaxis = axis | {"title": "predicted probability"}
    yaxis = axis | {"title": "share right"}
    return figure_html([ideal, dots], name, xaxis, yaxis, hovermode="closest", showlegend=False)


def _line_traces(plot: Plot, metrics: Metrics) -> list[go.Scatter]:
    """Return the traces of a plot of several metrics, each in its colour.

    Training is dotted; only the held-out evaluations are named in the legend.
    """
    traces = []
    # Not strict: `cycle` repeats the colours without end.
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
    """Return the traces of one metric: training, held out, and for `mlm_loss` unigram entropy."""
    training = metrics.training(plot.metric)
    if plot.metric == "tokens_per_second":
        # Throughput is known only for the last step of each logging interval.
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
    # With its step, because the nearest evaluation is seldom at the step under the pointer.
    hover = "%{y:.4~g} at step %{x:,}"
    return _trace(curve, name, {"color": colour, "width": 2}, mode=mode, hovertemplate=hover)


def _entropy_traces(metrics: Metrics) -> list[go.Scatter]:
    """Return a dashed line; a loss below it is better than that of word frequencies alone."""
    entropy = metrics.evaluations("unigram_entropy").finite()
    if not len(entropy.steps):
        return []
    ends = Curve(np.array([0, metrics.last_step]), np.repeat(entropy.values[-1], 2))
    return [_trace(ends, "unigram entropy", {"color": GREY, "dash": "dash", "width": 1.5})]


def _trace(curve: Curve, name: str, line: dict[str, Any], **options: Any) -> go.Scatter:
    # Lists of rounded numbers: plotly's packed binary form of NumPy arrays would be longer here.
    values = [
        float(number_text(value, ".5g")) if np.isfinite(value) else None for value in curve.values
    ]
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
        # At least ten steps: else the axis of a run that has just begun shows fractions of steps.
        "range": [0, max(1.01 * last_step, 10)],
        "hoverformat": ",d",
        # d3-format: SI prefixes without trailing zeros, such as 20k.
        "tickformat": "~s",
        "nticks": 8,
    }
    yaxis: dict[str, Any] = {}
    if plot.log:
        # D2: ticks also at 2 and 5 times each power of ten, since a norm may stay between two.
        yaxis = {"type": "log", "dtick": "D2"}
    yaxis |= {"title": plot.unit or None, "tickformat": plot.ticks}
    name = f"plot-{slug(plot.metric)}"
    legend = len(traces) > 1
    return figure_html(traces, name, xaxis, yaxis, hovermode="x unified", showlegend=legend)


def figure_html(
    traces: list[go.Scatter],
    name: str,
    xaxis: dict[str, Any],
    yaxis: dict[str, Any],
    *,
    hovermode: str,
    showlegend: bool,
) -> str:
    """Return a plot as HTML, in a `div` with the id `name`; for a page with `plotly_script`."""
    figure = go.Figure(traces)
    # Transparent background, grey lines: the page has a light and a dark colour scheme.
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
        include_plotlyjs=False,  # 4.9 MB, which the page has once in its head
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
