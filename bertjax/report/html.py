"""`report.html`: a run on one page."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from etils import epath

from bertjax.config import Config, ModelConfig, to_flat_dict
from bertjax.config.composition import composition
from bertjax.config.distill import TERMS
from bertjax.report import estimate, plots
from bertjax.report.curves import DISTILLATION, Metrics, heldout_names, read_metrics
from bertjax.report.figures import Figure, draw_figures, run_figures, slug
from bertjax.report.page import page
from bertjax.report.plots import Plot
from bertjax.storage import write_whole
from bertjax.training import run_config
from bertjax.training.logs.side_file import SideFile

REPORT = "report.html"


@dataclass(frozen=True)
class Content:
    """The parts of a page that differ between pretraining and fine-tuning."""

    metrics: Metrics
    figures: list[Figure]
    plots: Sequence[Plot]
    evaluation: str = ""
    """HTML of the evaluation, which is below the plots."""


def write_report(run_dir: epath.PathLike) -> epath.Path:
    """Write `run_dir/report.html` from what the run has written so far; return its path.

    Raises `UserError` as `report_page` does, and if the page cannot be written.
    """
    path = epath.Path(run_dir) / REPORT
    write_whole(path, report_page(run_dir))  # a browser reloads the old page or the new one
    return path


def write_report_beside(file: SideFile) -> None:
    """Write the report of a run, `file`, while the run goes on; log why if it cannot be written."""
    with file.errors_said():
        page = report_page(file.path.parent)
        file.attempt(partial(write_whole, file.path, page))


def report_page(run_dir: epath.PathLike) -> bytes:
    """Return the page of what a run has written so far.

    The page shows loss, accuracy or the tasks' metrics, learning rate, gradient norm and throughput
    over steps; the latest held-out figures; `evaluation.json` if the run is a fine-tuning; the
    compiler's estimate if `bertjax compile` has written one; and the configuration. Raises
    `UserError` if the folder is not a run folder, or one of its files is broken.
    """
    folder = epath.Path(run_dir)
    config = run_config.read_run_config(folder)
    if config.finetune.tasks:
        content = _finetuning_content(config, folder)
    elif config.distill.teacher:
        content = _distillation_content(folder)
    else:
        content = _pretraining_content(folder)
    name = html.escape(folder.name)
    step, steps = content.metrics.last_step, config.train.steps
    body = f"""<h1>{name}</h1>
<p class="sub"><span id="figure-steps" data-value="{step}">step {step:,}</span>
of {steps:,} · {_model_line(config.model)}</p>
<div class="bar"><div style="width:{100 * min(step / steps, 1):.1f}%"></div></div>
<div class="figures">{draw_figures(content.figures)}</div>
<div class="plots">{plots.draw(content.metrics, content.plots)}</div>
{content.evaluation}{estimate.estimate_section(folder)}
<details><summary>Configuration</summary><table>{_config_lines(config)}</table></details>
"""
    return page(f"{name}: bertjax run", body, plots.plotly_script()).encode()


def _pretraining_content(folder: epath.Path) -> Content:
    metrics = read_metrics(folder)
    return Content(metrics, _pretraining_figures(metrics), plots.PRETRAINING)


def _distillation_content(folder: epath.Path) -> Content:
    metrics = read_metrics(folder, DISTILLATION)
    return Content(metrics, _distillation_figures(metrics), plots.DISTILLATION)


def _distillation_figures(metrics: Metrics) -> list[Figure]:
    """Return the figures of a run with a teacher: its loss, and those terms that it has."""
    figures = [Figure("loss", "held-out loss, all terms", metrics.latest("loss"), ".4f")]
    for name in (*(f"{term}_loss" for term in TERMS), "mlm_loss"):
        value = metrics.latest(name)
        if value is not None:
            label = f"held-out {name.replace('_', ' ')}"
            figures.append(Figure(slug(name), label, value, ".4f"))
    return [*figures, *run_figures(metrics)]


def _finetuning_content(config: Config, folder: epath.Path) -> Content:
    from bertjax.report import evaluation, tasks  # they import SciPy, which takes seconds

    columns = heldout_names(folder)
    reported = tasks.reported_tasks(config.finetune, columns)
    metrics = read_metrics(folder, tasks.read_columns(reported, columns))
    return Content(
        metrics,
        tasks.task_figures(reported, metrics, columns),
        tasks.task_plots(reported, columns),
        evaluation.evaluation_section(folder, reported),
    )


def _model_line(model: ModelConfig) -> str:
    line = (
        f"{model.num_hidden_layers} layers · width {model.hidden_size} · "
        f"{model.num_attention_heads} heads · vocabulary {model.vocab_size:,} · {model.dtype}"
    )
    others = composition(model)
    return f"{line}<br>{' · '.join(others)}" if others else line


def _pretraining_figures(metrics: Metrics) -> list[Figure]:
    """Return the figures at the head of a pretraining run's page: those looked for first."""
    lowest = metrics.lowest("mlm_loss")
    best_label, best = "best MLM loss", None
    if lowest is not None:
        best_label, best = f"best MLM loss, step {lowest.step:,}", lowest.value
    # A run has at most one objective beside masked words: what there is an accuracy of, else NSP.
    order, detection = metrics.latest("sop_accuracy"), metrics.latest("detection_accuracy")
    if detection is not None:
        label = "held-out accuracy of replaced tokens"
        sentences = Figure("detection-accuracy", label, detection, ".1%")
    elif order is not None:
        sentences = Figure("sop-accuracy", "held-out SOP accuracy", order, ".1%")
    else:
        next_sentence = metrics.latest("nsp_accuracy")
        sentences = Figure("nsp-accuracy", "held-out NSP accuracy", next_sentence, ".1%")
    latest = metrics.latest
    return [
        Figure("mlm-loss", "held-out MLM loss, nats", latest("mlm_loss"), ".3f"),
        Figure("unigram-entropy", "unigram entropy, nats", latest("unigram_entropy"), ".3f"),
        Figure("mlm-perplexity", "held-out MLM perplexity", latest("mlm_perplexity"), ",.1f"),
        Figure("mlm-accuracy", "held-out MLM accuracy", latest("mlm_accuracy"), ".1%"),
        sentences,
        Figure("best-mlm-loss", best_label, best, ".3f"),
        *run_figures(metrics),
    ]


def _config_lines(config: Config) -> str:
    """Return the lines of a table, one for each field."""
    lines = []
    for name, value in to_flat_dict(config).items():
        shown = html.escape(json.dumps(value, ensure_ascii=False))
        lines.append(f"<tr><td>{html.escape(name)}</td><td>{shown}</td></tr>")
    return "".join(lines)
