"""`report.html`: a run on one page, with nothing to load from elsewhere."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config, to_dict
from bertjax.report import estimate, plots
from bertjax.report.curves import Metrics, heldout_names, read_metrics
from bertjax.report.plots import Figure, Plot
from bertjax.storage import write_whole
from bertjax.training import run_config as run_folder

PAGE_STYLE = """
:root { color-scheme: light dark; --line: rgba(128,128,128,.25); --soft: rgba(128,128,128,.08); --dim: #6b7280;
  --paper: #fff; --ink: #111318; }
@media (prefers-color-scheme: dark) { :root { --dim: #9ca3af; --paper: #111318; --ink: #e5e7eb; } }
body { background: var(--paper); color: var(--ink); }
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
.plot.wide { grid-column: 1 / -1; } .note { color: var(--dim); font-size: 13px; font-weight: 400; }
@media (max-width: 760px) { .plots { grid-template-columns: 1fr; } .figures { grid-template-columns: 1fr 1fr; } }
.plot svg text { fill: var(--dim) !important; } .plot svg .hoverlayer text { fill: var(--ink) !important; }
.plot .hoverlayer .legend rect.bg { fill: var(--paper) !important; stroke: var(--line) !important; }
.plot .spikeline { stroke: var(--line) !important; stroke-width: 1px !important; stroke-dasharray: none !important; }
details { margin-top: 22px; border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
summary { cursor: pointer; font-weight: 600; } table { border-collapse: collapse; margin-top: 8px; font-size: 13px; }
td { padding: 2px 18px 2px 0; vertical-align: top; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Content:
    """What the page of one kind of run shows."""

    metrics: Metrics
    figures: Sequence[Figure]
    plots: Sequence[Plot]
    section: str = ""
    """HTML below the plots."""


def write_report(run_dir: epath.PathLike) -> epath.Path:
    """Write `run_dir/report.html` from what the run has written so far; returns its path.

    Loss, accuracy or the tasks' metrics, learning rate, gradient norm and throughput over steps,
    the latest held-out figures, of a fine-tuned run what `evaluation.json` says, the compiler's
    estimate where `compile` left one, and the configuration. Raises `UserError` when the folder is
    no run, a file of it is broken, or the page cannot be written.
    """
    folder = epath.Path(run_dir)
    config = run_folder.read_config(folder)
    content = _of_tasks(config, folder) if config.finetune.tasks else _of_pretraining(folder)
    figures = "".join(_figure(*figure) for figure in content.figures)
    step = content.metrics.last_step
    done = step / config.train.steps
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(folder.name)}: bertjax run</title><style>{PAGE_STYLE}</style>{plots.plotly_script()}</head><body>
<h1>{html.escape(folder.name)}</h1>
<p class="sub"><span id="figure-steps" data-value="{step}">step {step:,}</span>
of {config.train.steps:,} · {_model_line(config.model)}</p>
<div class="bar"><div style="width:{100 * min(done, 1):.1f}%"></div></div>
<div class="figures">{figures}</div>
<div class="plots">{plots.draw(content.metrics, content.plots)}</div>
{content.section}{estimate.section(folder)}
<details><summary>Configuration</summary><table>{_rows(to_dict(config))}</table></details>
</body></html>"""
    path = folder / "report.html"
    write_whole(path, page.encode())  # whoever has it open reloads the old one or the new one
    return path


def _of_pretraining(folder: epath.Path) -> Content:
    metrics = read_metrics(folder)
    return Content(metrics, _figures(metrics), plots.PRETRAINING)


def _of_tasks(config: Config, folder: epath.Path) -> Content:
    from bertjax.report import evaluation, tasks  # they bring SciPy, which takes seconds

    columns = heldout_names(folder)
    shown = tasks.reported_tasks(config.finetune, columns)
    metrics = read_metrics(folder, tasks.read_columns(shown, columns))
    figures = tasks.figures(shown, metrics, columns)
    return Content(metrics, figures, tasks.plots(shown, columns), evaluation.section(folder, shown))


def _model_line(model: Any) -> str:
    return (
        f"{model.num_hidden_layers} layers · width {model.hidden_size} · {model.num_attention_heads} heads · "
        f"vocabulary {model.vocab_size:,} · {model.dtype}"
    )


def _figures(metrics: Metrics) -> list[Figure]:
    """The head of a pretraining run's page: what a reader looks for first."""
    best = metrics.lowest("mlm_loss")
    rates = metrics.training("tokens_per_second").known().values
    when = f", step {best[0]:,}" if best else ""
    order = metrics.latest("sop_accuracy")
    sentences = ("sop-accuracy", "held-out SOP accuracy", order, ".1%")
    if order is None:
        sentences = ("nsp-accuracy", "held-out NSP accuracy", metrics.latest("nsp_accuracy"), ".1%")
    return [
        ("mlm-loss", "held-out MLM loss, nats", metrics.latest("mlm_loss"), ".3f"),
        ("unigram-entropy", "unigram entropy, nats", metrics.latest("unigram_entropy"), ".3f"),
        ("mlm-perplexity", "held-out MLM perplexity", metrics.latest("mlm_perplexity"), ",.1f"),
        ("mlm-accuracy", "held-out MLM accuracy", metrics.latest("mlm_accuracy"), ".1%"),
        sentences,
        ("best-mlm-loss", f"best MLM loss{when}", best[1] if best else None, ".3f"),
        (
            "tokens-per-second",
            "tokens a second, median",
            float(np.median(rates)) if len(rates) else None,
            ",.0f",
        ),
        ("skipped", "skipped updates", metrics.skipped, ",d"),
    ]


def _figure(name: str, label: str, value: float | None, form: str) -> str:
    shown = "–" if value is None else format(value, form)
    data = "" if value is None else f' data-value="{value}"'
    return f'<div class="figure"><b id="figure-{name}"{data}>{shown}</b><span>{html.escape(label)}</span></div>'


def _rows(tree: dict[str, Any], prefix: str = "") -> str:
    rows = []
    for name, value in tree.items():
        if isinstance(value, dict):
            rows.append(_rows(value, f"{prefix}{name}."))
        else:
            shown = html.escape(json.dumps(value, ensure_ascii=False))
            rows.append(f"<tr><td>{html.escape(prefix + name)}</td><td>{shown}</td></tr>")
    return "".join(rows)
