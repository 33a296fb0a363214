"""`report.html`: a run on one page, with nothing to load from elsewhere."""

import html
import json
from typing import Any

import plotly.graph_objects as go
import plotly.io
from etils import epath

from bertjax.config import to_dict
from bertjax.report.curves import Metrics, read_metrics
from bertjax.train import run_folder

BLUE, ORANGE, GREY = "#3b82f6", "#f59e0b", "rgba(128,128,128,0.9)"
FAINT = "rgba(59,130,246,0.25)"
GRID = "rgba(128,128,128,0.2)"  # seen on white and on black

STYLE = """
:root { color-scheme: light dark; --line: rgba(128,128,128,.25); --soft: rgba(128,128,128,.08); --dim: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --dim: #9ca3af; } body { background: #111318; color: #e5e7eb; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 15px; font-weight: 600; margin: 0 0 2px; }
.sub { color: var(--dim); margin: 2px 0 20px; }
.bar { height: 6px; border-radius: 3px; background: var(--line); margin-bottom: 22px; overflow: hidden; }
.bar div { height: 100%; background: #3b82f6; }
.figures { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin-bottom: 18px; }
.figure { background: var(--soft); border-radius: 10px; padding: 10px 14px; }
.figure b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.figure span { color: var(--dim); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(2, 1fr); gap: 14px; }
.plot { border: 1px solid var(--line); border-radius: 10px; padding: 12px 12px 2px; min-width: 0; }
.plot.wide { grid-column: 1 / -1; } .note { color: var(--dim); font-size: 13px; }
@media (max-width: 760px) { .plots { grid-template-columns: 1fr; } .figures { grid-template-columns: 1fr 1fr; } }
details { margin-top: 22px; border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
summary { cursor: pointer; font-weight: 600; } table { border-collapse: collapse; margin-top: 8px; font-size: 13px; }
td { padding: 2px 18px 2px 0; vertical-align: top; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
"""


def write_report(run_dir: epath.PathLike) -> epath.Path:
    """Write `run_dir/report.html` from what the run has written so far; returns its path.

    Loss, accuracy, learning rate, gradient norm and throughput over steps, the latest held-out
    figures, and the configuration. Raises `UserError` when the folder is no run.
    """
    folder = epath.Path(run_dir)
    config = run_folder.read_config(folder)
    metrics = read_metrics(folder)
    figures = "".join(_figure(*figure) for figure in _figures(metrics))
    done = metrics.last_step / config.train.steps
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(folder.name)}: bertjax run</title><style>{STYLE}</style></head><body>
<h1>{html.escape(folder.name)}</h1>
<p class="sub"><span id="figure-steps" data-value="{metrics.last_step}">step {metrics.last_step:,}</span>
of {config.train.steps:,} · {_model_line(config.model)}</p>
<div class="bar"><div style="width:{100 * min(done, 1):.1f}%"></div></div>
<div class="figures">{figures}</div>
<div class="plots">{_plots(metrics)}</div>
<details><summary>Configuration</summary><table>{_rows(to_dict(config))}</table></details>
</body></html>"""
    unfinished = folder / "report.html.unfinished"
    unfinished.write_text(page)
    return unfinished.replace(folder / "report.html")


def _model_line(model: Any) -> str:
    return (
        f"{model.num_hidden_layers} layers · width {model.hidden_size} · {model.num_attention_heads} heads · "
        f"vocabulary {model.vocab_size:,} · {model.dtype}"
    )


def _figures(metrics: Metrics) -> list[tuple[str, str, float | None, str]]:
    """(id, label, value, format) of the page's head: what a reader looks for first."""
    last: dict[str, Any] = metrics.heldout[-1] if metrics.heldout else {}
    best = metrics.best() or {}
    rates = metrics.curve("rated", "tokens_per_second").values
    return [
        ("mlm-loss", "held-out MLM loss, nats", last.get("mlm_loss"), ".3f"),
        ("unigram-entropy", "unigram entropy, nats", last.get("unigram_entropy"), ".3f"),
        ("mlm-perplexity", "held-out MLM perplexity", last.get("mlm_perplexity"), ",.1f"),
        ("mlm-accuracy", "held-out MLM accuracy", last.get("mlm_accuracy"), ".1%"),
        ("nsp-accuracy", "held-out NSP accuracy", last.get("nsp_accuracy"), ".1%"),
        ("best-mlm-loss", f"best MLM loss, step {best.get('step', 0):,}", best.get("mlm_loss"), ".3f"),
        ("tokens-per-second", "tokens a second, median", _median(rates), ",.0f"),
        ("skipped", "skipped updates", metrics.skipped, ",d"),
    ]


def _median(values: Any) -> float | None:
    ordered = sorted(values)
    return float(ordered[len(ordered) // 2]) if ordered else None


def _figure(name: str, label: str, value: float | None, form: str) -> str:
    shown = "–" if value is None else format(value, form)
    data = "" if value is None else f' data-value="{value}"'
    return f'<div class="figure"><b id="figure-{name}"{data}>{shown}</b><span>{html.escape(label)}</span></div>'


def _plots(metrics: Metrics) -> str:
    entropy = metrics.heldout[-1].get("unigram_entropy") if metrics.heldout else None
    loss = _lines(metrics, "mlm_loss")
    if entropy is not None and metrics.last_step:
        ends = [1, metrics.last_step]
        dashes = {"color": GREY, "dash": "dash", "width": 1}
        loss.append(go.Scatter(x=ends, y=[entropy] * 2, name="unigram entropy", mode="lines", line=dashes))
    plots = [
        ("mlm-loss", "Masked-word loss", "nats", loss, True),
        ("mlm-accuracy", "Masked-word accuracy", "", _lines(metrics, "mlm_accuracy"), False),
        ("nsp-loss", "Next-sentence loss", "nats", _lines(metrics, "nsp_loss"), False),
        ("learning-rate", "Learning rate", "", _lines(metrics, "learning_rate", raw=False), False),
        ("grad-norm", "Gradient norm, before clipping", "", _lines(metrics, "grad_norm"), False),
        (
            "throughput",
            "Throughput",
            "tokens a second",
            _lines(metrics, "tokens_per_second", raw=False, split="rated"),
            True,
        ),
    ]
    parts = []
    for number, (name, title, unit, traces, wide) in enumerate(plots):
        drawing = _draw(f"plot-{name}", traces, unit, with_library=number == 0)
        size = "plot wide" if wide else "plot"
        parts.append(f'<div class="{size}"><h2>{title}</h2>{drawing}</div>')
    return "".join(parts)


def _lines(metrics: Metrics, name: str, raw: bool = True, split: str = "train") -> list[go.Scatter]:
    """Training as a faint line with its average over it, held out as points joined."""
    curve = metrics.curve(split, name)
    traces = []
    if raw and len(curve.steps):
        smooth = curve.smoothed()
        thin = {"color": FAINT, "width": 1}
        traces.append(_trace(curve, "each step", line=thin, hoverinfo="skip", showlegend=False))
        traces.append(_trace(smooth, "train", line={"color": BLUE, "width": 2}))
    elif len(curve.steps):
        traces.append(_trace(curve, "train", line={"color": BLUE, "width": 2}, showlegend=False))
    heldout = metrics.curve("heldout", name)
    if len(heldout.steps):
        traces.append(_trace(heldout, "held out", mode="lines+markers", line={"color": ORANGE, "width": 2}))
    return traces


def _trace(curve: Any, name: str, mode: str = "lines", **options: Any) -> go.Scatter:
    # Plain rounded lists: plotly's packed binary form of numpy arrays is longer here.
    values = [None if y != y else float(f"{y:.5g}") for y in curve.values]
    return go.Scatter(x=curve.steps.tolist(), y=values, name=name, mode=mode, **options)


def _draw(div_id: str, traces: list[go.Scatter], unit: str, *, with_library: bool) -> str:
    figure = go.Figure(traces)
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID}
    figure.update_layout(
        height=300,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "size": 12},
        legend={"orientation": "h", "y": 1.0, "x": 1.0, "xanchor": "right", "yanchor": "bottom"},
        hovermode="x unified",
        xaxis=axis | {"title": None, "automargin": True},
        yaxis=axis | {"title": unit or None, "automargin": True},
    )
    return plotly.io.to_html(
        figure,
        full_html=False,
        include_plotlyjs=with_library,
        div_id=div_id,
        config={"displayModeBar": False, "responsive": True},
    )


def _rows(tree: dict[str, Any], prefix: str = "") -> str:
    rows = []
    for name, value in tree.items():
        if isinstance(value, dict):
            rows.append(_rows(value, f"{prefix}{name}."))
        else:
            shown = html.escape(json.dumps(value, ensure_ascii=False))
            rows.append(f"<tr><td>{html.escape(prefix + name)}</td><td>{shown}</td></tr>")
    return "".join(rows)
