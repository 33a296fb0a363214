"""`evaluation.json` on a run's page: each split's figures, confusion, calibration, worst errors."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from bertjax.errors import check
from bertjax.finetuning.error_analysis import FILE
from bertjax.number_text import number_text
from bertjax.report import plots
from bertjax.report.class_scores import class_scores
from bertjax.report.fields import field_of
from bertjax.report.figures import NOTHING, slug
from bertjax.report.tasks import ReportedTask, format_of, title, unit_suffix
from bertjax.storage import read_json
from bertjax.tasks.error_tables import MAX_LABELS

BRIEF = 160  # number of characters of a folded text that are shown
MAX_SHARES = 10  # with more classes a cell has no space for its share of the row
EVALUATION_STYLE = """
.evaluation h2.split { font-size: 18px; margin: 26px 0 8px; }
.evaluation .plot { padding-bottom: 12px; }
.evaluation .plots { align-items: start; } .evaluation .scroll { overflow-x: auto; }
.evaluation th { font-weight: 600; text-align: left; padding: 2px 18px 2px 0; }
.evaluation td.number { text-align: right; font-variant-numeric: tabular-nums; }
.evaluation .confusion { border-spacing: 2px; border-collapse: separate; }
.evaluation .confusion th { padding: 2px 8px; color: var(--dim); font-weight: 400;
  white-space: nowrap; }
.evaluation .confusion.many thead th.predicted { writing-mode: vertical-rl; padding: 8px 2px; }
.evaluation .confusion td { padding: 6px 8px; text-align: center; border-radius: 4px;
  overflow-wrap: normal;
  background: rgba(59,130,246,var(--share)); }
.evaluation .confusion td small { display: block; opacity: .8; }
.evaluation .errors { width: 100%; }
.evaluation .errors td { font-family: inherit; padding: 6px 18px 6px 0; }
.evaluation .errors tr + tr td { border-top: 1px solid var(--line); }
.evaluation .errors .text { width: 60%; }
.evaluation .errors details { margin: 0; border: 0; padding: 0; }
.evaluation .errors summary { font-weight: 400; }
.evaluation .errors details[open] .brief { display: none; }
@media (max-width: 760px) { .evaluation .errors thead { display: none; }
  .evaluation .errors .text { width: auto; }
  .evaluation .errors tr, .evaluation .errors td { display: block; }
  .evaluation .errors td + td { border: 0 !important; }
  .evaluation .errors td::before { content: attr(data-what) " "; color: var(--dim); } }
"""


def evaluation_section(run_dir: epath.Path, tasks: Mapping[str, ReportedTask]) -> str:
    """Return the evaluation of a run folder as HTML, or '' if there is none.

    `tasks` are the run's tasks by name. Raises `UserError` naming the file, the split and the field
    if the file is not what `bertjax.finetuning.error_analysis` writes, or is of other tasks.
    """
    path = run_dir / FILE
    if not path.exists():
        return ""
    content = read_json(path)
    step = field_of(content, "step", int, str(path))
    splits = []
    for number, split in enumerate(field_of(content, "splits", list, str(path))):
        splits.append(_split(split, f"{path}: splits[{number}]", tasks))
    shown_step = f'<span id="evaluation-step" data-value="{step}">{step:,}</span>'
    return f"""<div class="evaluation" id="evaluation"><style>{EVALUATION_STYLE}</style>
<h2 class="split">Evaluation of the checkpoint of step {shown_step}
</h2>{"".join(splits)}</div>"""


def _split(split: Any, where: str, tasks: Mapping[str, ReportedTask]) -> str:
    task, part = field_of(split, "task", str, where), field_of(split, "split", str, where)
    check(
        task in tasks,
        where=f"{where}: task",
        found=task,
        expected=f"one of the run's, {', '.join(tasks)}",
    )
    examples, metric = (
        field_of(split, "examples", int, where),
        field_of(split, "metric", str, where),
    )
    name, heading = f"evaluation-{task}", task
    if part:
        name, heading = f"{name}-{part}", f"{task}, {part}"
    key = slug(name)
    boxes = [_figures(field_of(split, "figures", dict, where), metric, tasks[task].kind, where)]
    if "class_scores" in split:
        scores = field_of(split, "class_scores", dict, where)
        boxes.append(class_scores(scores, f"{where}: class_scores"))
    if "calibration" in split:
        calibration = field_of(split, "calibration", dict, where)
        boxes.append(_calibration(calibration, f"{key}-calibration", f"{where}: calibration"))
    if "confusion" in split:
        boxes.append(_confusion(field_of(split, "confusion", dict, where), f"{where}: confusion"))
    boxes.append(_errors(field_of(split, "errors", list, where), f"{where}: errors"))
    note = f'<span class="note">{examples:,} examples{_constant_note(split, where)}</span>'
    return f"""<div id="{key}"><h2 class="split">{html.escape(heading)} {note}</h2>
<div class="plots">{"".join(boxes)}</div></div>"""


def _constant_note(split: Any, where: str) -> str:
    """Return what the note says of a model that answers the same for all examples, or ''."""
    if "constant_answer" not in split:
        return ""
    answer = field_of(split, "constant_answer", str, where)
    return f", <b>all of them answered the same: {html.escape(answer)}</b>"


def _figures(figures: Mapping[str, Any], metric: str, kind: str, where: str) -> str:
    """Return a table of the figures: the metric first, then the others in the order of the file."""
    lines = []
    # The key of the metric is False, which sorts before True; equal keys keep their order.
    for name in sorted(figures, key=lambda name: name != metric):
        value = field_of(figures, name, float, f"{where}: figures")
        metric_format = format_of(kind, name)
        text = number_text(value, metric_format.spec) if math.isfinite(value) else NOTHING
        heading = html.escape(title(name) + unit_suffix(metric_format))
        data = f'data-figure="{html.escape(name)}" data-value="{value}"'
        lines.append(
            f'<tr><th scope="row">{heading}</th><td class="number" {data}>{text}</td></tr>'
        )
    return f'<div class="plot"><h2>Figures</h2><table>{"".join(lines)}</table></div>'


def _calibration(calibration: Mapping[str, Any], key: str, where: str) -> str:
    error = field_of(calibration, "expected_calibration_error", float, where)
    bins = []
    for number, entry in enumerate(field_of(calibration, "bins", list, where)):
        place = f"{where}: bins[{number}]"
        names = ("predictions", "confidence", "accuracy")
        bins.append({name: field_of(entry, name, float, place) for name in names})
    return f"""<div class="plot"><h2>Calibration</h2><span class="note">expected calibration error
<b data-figure="expected_calibration_error" data-value="{error}">{error:.1%}</b></span>
{plots.reliability(bins, key)}</div>"""


def _confusion(confusion: Mapping[str, Any], where: str) -> str:
    labels = field_of(confusion, "labels", list, where)
    counts = field_of(confusion, "counts", list, where)
    _check_counts(counts, len(labels), f"{where}: counts")
    heads, lines = [], []
    for true, label in enumerate(labels):
        heads.append(f'<th class="predicted" scope="col">{html.escape(str(label))}</th>')
        lines.append(_confusion_line(true, labels, counts[true]))
    cut = ""
    if len(labels) >= MAX_LABELS:
        cut = f", of at least {MAX_LABELS} classes the commonest"
    many = " many" if len(labels) > MAX_SHARES else ""
    note = f"""<p class="note">a row for each true class, a column for each
predicted one, shaded by the share of the row{cut}</p>"""
    table = f"""<table class="confusion{many}">
<thead><tr><th></th>{"".join(heads)}</tr></thead>{"".join(lines)}</table>"""
    return f'<div class="plot wide"><h2>Confusion</h2>{note}<div class="scroll">{table}</div></div>'


def _check_counts(counts: Sequence[Any], size: int, where: str) -> None:
    """Raise `UserError` if `counts` is not a matrix [size, size] of counts."""
    square = len(counts) == size and all(
        isinstance(line, list) and len(line) == size for line in counts
    )
    check(
        square,
        where=where,
        found=f"{len(counts)} rows",
        expected=f"{size} rows and columns, one a label",
    )
    for line in counts:
        check(
            all(isinstance(count, int) and count >= 0 for count in line),
            where=where,
            found="another value",
            expected="counts, 0 or more",
        )


def _confusion_line(true: int, labels: Sequence[Any], counts: Sequence[int]) -> str:
    # A class may be predicted without having any example: its shares are 0, not 0 / 0.
    total = max(sum(counts), 1)
    cells = []
    for predicted, count in enumerate(counts):
        share = count / total
        small = f"<small>{share:.0%}</small>" if len(labels) <= MAX_SHARES else ""
        tooltip = html.escape(
            f"{labels[true]}, predicted {labels[predicted]}: {count:,} of {total:,}, {share:.1%}"
        )
        # On a shade darker than 0.65 the text could not be read, in the light or the dark scheme.
        cells.append(
            f'<td data-true="{true}" data-predicted="{predicted}" data-value="{count}" '
            f'title="{tooltip}" style="--share: {0.65 * share:.3f}">{count:,}{small}</td>'
        )
    return f'<tr><th scope="row">{html.escape(str(labels[true]))}</th>{"".join(cells)}</tr>'


def _errors(errors: Sequence[Any], where: str) -> str:
    if not errors:
        return '<div class="plot wide"><h2>Worst errors</h2><p class="note">none</p></div>'
    names = ("text", "expected", "predicted")
    heads = [f'<th scope="col" class="{name}">{name}</th>' for name in names]
    lines = []
    for number, error in enumerate(errors):
        cells = []
        # dir="auto": the text of a task may run from right to left.
        for name in names:
            text = _folded(field_of(error, name, str, f"{where}[{number}]"))
            cells.append(f'<td class="{name}" data-what="{name}" dir="auto">{text}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = f"<thead><tr>{''.join(heads)}</tr></thead>"
    return f"""<div class="plot wide"><h2>Worst errors</h2><table class="errors">{head}
<tbody>{"".join(lines)}</tbody></table></div>"""


def _folded(text: str) -> str:
    if len(text) <= BRIEF:
        return html.escape(text)
    summary = f'<summary><span class="brief">{html.escape(text[:BRIEF])}…</span></summary>'
    return f"<details>{summary}{html.escape(text)}</details>"
