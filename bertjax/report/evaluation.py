"""`evaluation.json` on a run's page: figures, confusion, calibration and the worst errors of each
split.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from bertjax.errors import check
from bertjax.finetuning.error_analysis import FILE
from bertjax.tasks.error_tables import MAX_LABELS
from bertjax.report import plots
from bertjax.report.plots import slug
from bertjax.report.tasks import ReportedTask, format_of, title, unit_of
from bertjax.storage import read_json

BRIEF = 160  # characters of a text that are seen before it is unfolded
MOST_SHARES = 10  # classes up to which a cell has room for its share of the row
EVALUATION_STYLE = """
.evaluation h2.split { font-size: 18px; margin: 26px 0 8px; } .evaluation .plot { padding-bottom: 12px; }
.evaluation .plots { align-items: start; } .evaluation .scroll { overflow-x: auto; }
.evaluation th { font-weight: 600; text-align: left; padding: 2px 18px 2px 0; }
.evaluation td.number { text-align: right; font-variant-numeric: tabular-nums; }
.evaluation .confusion { border-spacing: 2px; border-collapse: separate; }
.evaluation .confusion th { padding: 2px 8px; color: var(--dim); font-weight: 400; white-space: nowrap; }
.evaluation .confusion.many thead th.predicted { writing-mode: vertical-rl; padding: 8px 2px; }
.evaluation .confusion td { padding: 6px 8px; text-align: center; border-radius: 4px; overflow-wrap: normal;
  background: rgba(59,130,246,var(--share)); }
.evaluation .confusion td small { display: block; opacity: .8; }
.evaluation .errors { width: 100%; } .evaluation .errors td { font-family: inherit; padding: 6px 18px 6px 0; }
.evaluation .errors tr + tr td { border-top: 1px solid var(--line); } .evaluation .errors .text { width: 60%; }
.evaluation .errors details { margin: 0; border: 0; padding: 0; } .evaluation .errors summary { font-weight: 400; }
.evaluation .errors details[open] .brief { display: none; }
@media (max-width: 760px) { .evaluation .errors thead { display: none; } .evaluation .errors .text { width: auto; }
  .evaluation .errors tr, .evaluation .errors td { display: block; }
  .evaluation .errors td + td { border: 0 !important; }
  .evaluation .errors td::before { content: attr(data-what) " "; color: var(--dim); } }
"""

Split = Mapping[str, Any]


def section(run_dir: epath.Path, tasks: Mapping[str, ReportedTask]) -> str:
    """The evaluation of a run folder as HTML, or '' where there is none.

    Raises `UserError` naming the file, the split and the field where the file is not what
    `bertjax.finetuning.error_analysis` writes, or is of other tasks than `tasks`, the run's own by
    name.
    """
    path = run_dir / FILE
    if not path.exists():
        return ""
    content = read_json(path)
    step, splits = (
        _field(content, "step", int, str(path)),
        _field(content, "splits", list, str(path)),
    )
    shown = "".join(_split(split, f"{path}: splits[{n}]", tasks) for n, split in enumerate(splits))
    return f"""<div class="evaluation" id="evaluation"><style>{EVALUATION_STYLE}</style>
<h2 class="split">Evaluation of the checkpoint of step <span id="evaluation-step" data-value="{step}">{step:,}</span>
</h2>{shown}</div>"""


def _split(split: Any, where: str, tasks: Mapping[str, ReportedTask]) -> str:
    name, part = _field(split, "task", str, where), _field(split, "split", str, where)
    check(
        name in tasks,
        where=f"{where}: task",
        found=name,
        expected=f"one of the run's, {', '.join(tasks)}",
    )
    examples, metric = _field(split, "examples", int, where), _field(split, "metric", str, where)
    key = slug(f"evaluation-{name}" + (f"-{part}" if part else ""))
    boxes = _figures(_field(split, "figures", dict, where), metric, tasks[name].kind, where)
    if "calibration" in split:
        boxes += _calibration(
            _field(split, "calibration", dict, where), f"{key}-calibration", f"{where}: calibration"
        )
    if "confusion" in split:
        boxes += _confusion(_field(split, "confusion", dict, where), f"{where}: confusion")
    boxes += _errors(_field(split, "errors", list, where), f"{where}: errors")
    heading = html.escape(name + (f", {part}" if part else ""))
    return f"""<div id="{key}"><h2 class="split">{heading} <span class="note">{examples:,} examples</span></h2>
<div class="plots">{boxes}</div></div>"""


def _figures(figures: Mapping[str, Any], metric: str, kind: str, where: str) -> str:
    """Table of the figures, the metric first, the others as the task has them."""
    rows = []
    for name in sorted(figures, key=lambda name: name != metric):
        value, scale = _field(figures, name, float, f"{where}: figures"), format_of(kind, name)
        shown = format(value, scale.form) if math.isfinite(value) else "–"
        rows.append(
            f'<tr><th scope="row">{html.escape(title(name) + unit_of(scale))}</th>'
            f'<td class="number" data-figure="{html.escape(name)}" data-value="{value}">{shown}</td></tr>'
        )
    return f'<div class="plot"><h2>Figures</h2><table>{"".join(rows)}</table></div>'


def _calibration(found: Mapping[str, Any], key: str, where: str) -> str:
    error = _field(found, "expected_calibration_error", float, where)
    bins = [
        {
            name: _field(one, name, float, f"{where}: bins[{n}]")
            for name in ("predictions", "confidence", "accuracy")
        }
        for n, one in enumerate(_field(found, "bins", list, where))
    ]
    return f"""<div class="plot"><h2>Calibration</h2><span class="note">expected calibration error
<b data-figure="expected_calibration_error" data-value="{error}">{error:.1%}</b></span>
{plots.reliability(bins, key)}</div>"""


def _confusion(found: Mapping[str, Any], where: str) -> str:
    labels, counts = _field(found, "labels", list, where), _field(found, "counts", list, where)
    number = len(labels)
    square = len(counts) == number and all(
        isinstance(row, list) and len(row) == number for row in counts
    )
    check(
        square,
        where=f"{where}: counts",
        found=f"{len(counts)} rows",
        expected=f"{number} rows and columns, one a label",
    )
    whole = all(isinstance(count, int) and count >= 0 for row in counts for count in row)
    check(whole, where=f"{where}: counts", found="another value", expected="counts, 0 or more")
    heads = "".join(
        f'<th class="predicted" scope="col">{html.escape(str(label))}</th>' for label in labels
    )
    rows = "".join(_confusion_row(i, labels, row) for i, row in enumerate(counts))
    cut = f", of at least {MAX_LABELS} classes the commonest" if number >= MAX_LABELS else ""
    many = " many" if number > MOST_SHARES else ""
    return f"""<div class="plot wide"><h2>Confusion</h2><p class="note">a row for each true class, a column for each
predicted one, shaded by the share of the row{cut}</p><div class="scroll"><table class="confusion{many}">
<thead><tr><th></th>{heads}</tr></thead>{rows}</table></div></div>"""


def _confusion_row(true: int, labels: Sequence[Any], counts: Sequence[int]) -> str:
    total, cells = max(sum(counts), 1), []
    for predicted, count in enumerate(counts):
        share = count / total
        small = f"<small>{share:.0%}</small>" if len(labels) <= MOST_SHARES else ""
        said = html.escape(
            f"{labels[true]}, predicted {labels[predicted]}: {count:,} of {total:,}, {share:.1%}"
        )
        # As dark as the ink can still be read on, in either colour scheme.
        cells.append(
            f'<td data-true="{true}" data-predicted="{predicted}" data-value="{count}" title="{said}" '
            f'style="--share: {0.65 * share:.3f}">{count:,}{small}</td>'
        )
    return f'<tr><th scope="row">{html.escape(str(labels[true]))}</th>{"".join(cells)}</tr>'


def _errors(found: Sequence[Any], where: str) -> str:
    if not found:
        return '<div class="plot wide"><h2>Worst errors</h2><p class="note">none</p></div>'
    names = ("text", "expected", "predicted")
    heads = "".join(f'<th scope="col" class="{name}">{name}</th>' for name in names)
    rows = []
    for n, error in enumerate(found):
        cells = [(name, _field(error, name, str, f"{where}[{n}]")) for name in names]
        inside = "".join(
            f'<td class="{name}" data-what="{name}" dir="auto">{_folded(text)}</td>'
            for name, text in cells
        )
        rows.append(f"<tr>{inside}</tr>")
    return f"""<div class="plot wide"><h2>Worst errors</h2><table class="errors"><thead><tr>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>"""


def _folded(text: str) -> str:
    if len(text) <= BRIEF:
        return html.escape(text)
    brief = html.escape(text[:BRIEF])
    return f'<details><summary><span class="brief">{brief}…</span></summary>{html.escape(text)}</details>'


def _field(values: Any, name: str, kind: type, where: str) -> Any:
    """A field of a stranger's JSON; a float may be an integer there, and null where it is not
    finite.
    """
    check(
        isinstance(values, dict),
        where=where,
        found=f"a {type(values).__name__}",
        expected="an object",
    )
    check(
        name in values,
        where=where,
        found=f"no field {name}",
        expected=f"fields as `bertjax evaluate` of this version writes in {FILE}",
    )
    value = values[name]
    if kind is float:
        value = math.nan if value is None else value
        good = isinstance(value, int | float) and not isinstance(value, bool)
        check(good, where=f"{where}: {name}", found=repr(value)[:80], expected="a number")
        return float(value)
    good = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    check(
        good, where=f"{where}: {name}", found=repr(value)[:80], expected=f"of type {kind.__name__}"
    )
    return value
