"""The report's plots: training as a faint line with its mean over it, held-out evaluations beside it."""

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
MOST_MARKERS = 40


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


PLOTS = (
    Plot("mlm_loss", "Masked-word loss", unit="nats", wide=True),
    Plot("mlm_accuracy", "Masked-word accuracy", ticks=".0%"),
    Plot("nsp_loss", "Next-sentence loss", unit="nats"),
    Plot("nsp_accuracy", "Next-sentence accuracy", ticks=".0%"),
    Plot("sop_loss", "Sentence-order loss", unit="nats"),
    Plot("sop_accuracy", "Sentence-order accuracy", ticks=".0%"),
    Plot("grad_norm", "Gradient norm, before clipping", ticks="~g", log=True),
    Plot("learning_rate", "Learning rate", ticks="~g", smooth=False),
    Plot("tokens_per_second", "Throughput", unit="tokens a second"),
)


def plotly_script() -> str:
    """Plotly's JavaScript, to stand in the page once and before the plots."""
    return f"<script>{get_plotlyjs()}</script>"


def draw(metrics: Metrics) -> str:
    """The plots as HTML, each in a `div` with the id `plot-METRIC`; of the sentence objectives, the run's own."""
    traced = [(plot, _traces(plot, metrics)) for plot in PLOTS]
    shown = [(plot, traces) for plot, traces in traced if traces or plot.metric[:4] not in ("nsp_", "sop_")]
    return "".join(_panel(plot, traces, metrics.last_step) for plot, traces in shown)


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
                _trace(every.thinned(), "each step", faint, hoverinfo="skip", hovertemplate=None, showlegend=False)
            )
            traces.append(_trace(every.smoothed(), "train", strong))
        else:
            traces.append(_trace(every.thinned(), "train", strong))
    if len(heldout.known().steps):
        mode = "lines+markers" if len(heldout.steps) <= MOST_MARKERS else "lines"
        at = "%{y:.4~g} at step %{x:,}"  # the nearest evaluation, seldom the step pointed at
        traces.append(_trace(heldout, "held out", {"color": ORANGE, "width": 2}, mode=mode, hovertemplate=at))
    if plot.metric == "mlm_loss":
        traces += _entropy(metrics)
    return traces


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
    inside = _svg(plot, traces, last_step) if traces else '<p class="note">nothing logged yet</p>'
    return f'<div class="{size}"><h2>{plot.title}</h2>{inside}</div>'


def _svg(plot: Plot, traces: list[go.Scatter], last_step: int) -> str:
    figure = go.Figure(traces)
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True}
    steps = {"range": [0, max(1.01 * last_step, 10)], "hoverformat": ",d", "tickformat": "~s", "nticks": 8}
    scale = {"type": "log", "dtick": "D2"} if plot.log else {}
    figure.update_layout(
        height=300,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "size": 12},
        showlegend=len(traces) > 1,
        legend={"orientation": "h", "y": 1.0, "x": 1.0, "xanchor": "right", "yanchor": "bottom"},
        hovermode="x unified",
        xaxis=axis | steps,
        yaxis=axis | scale | {"title": plot.unit or None, "tickformat": plot.ticks},
    )
    return plotly.io.to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        div_id=f"plot-{plot.metric.replace('_', '-')}",
        config={"displayModeBar": False, "responsive": True},
    )
