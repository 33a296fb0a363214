"""The compiler's estimate of a step, from `compile.json`, as a section of a page or as a page.

`bertjax compile` writes that file; `docs/compile.md` says what its figures mean.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from bertjax.estimate.answer_fields import FILE, MEMORY
from bertjax.report.figures import NOTHING, figure_box
from bertjax.report.page import page
from bertjax.storage import read_json, write_whole

PAGE = "compile.html"
ESTIMATE_STYLE = """
.estimate th { text-align: left; font-weight: 600; padding: 2px 18px 2px 0; }
.estimate table { width: 100%; }
.estimate h2 { margin-top: 18px; } .estimate td.number, .estimate th.number { text-align: right; }
"""

Fields = Mapping[str, Any]
"""An object of the JSON file."""


class Column(NamedTuple):
    """A column of a table."""

    heading: str
    text: Callable[[Fields], str]
    """Return the text of the cell for an object, not escaped."""
    is_number: bool = False
    """True if the column is aligned at the right."""


def estimate_section(run_dir: epath.Path) -> str:
    """Return the estimate of a run folder as HTML, or '' if there is none.

    Raises `UserError` if the file is broken.
    """
    path = run_dir / FILE
    return estimate_html(read_json(path)) if path.exists() else ""


def write_estimate_page(run_dir: epath.Path) -> epath.Path:
    """Write `compile.html` for a folder that is not a run folder; return its path."""
    name = html.escape(run_dir.name)
    body = f"<h1>{name}</h1>{estimate_section(run_dir)}"
    write_whole(run_dir / PAGE, page(f"{name}: bertjax compile", body).encode())
    return run_dir / PAGE


def estimate_html(answer: Fields) -> str:
    """Return the answer of `bertjax compile` as HTML."""
    estimate = answer["estimate"]
    if estimate["fits"]:
        parts = [_figures_and_tables(estimate)]
    else:
        parts = [f"<p>Does not fit: {html.escape(estimate['refusal'])}</p>"]
    if answer.get("phases"):
        parts.append(f"<h2>Phases of the run</h2>{_table(PHASES, answer['phases'])}")
    if answer.get("largest"):
        parts.append(_largest_batch(answer["largest"]))
    if answer.get("search"):
        layouts = _table(LAYOUTS, answer["search"])
        parts.append(f"<h2>Layouts tried, the quickest first</h2>{layouts}")
    topology = html.escape(estimate["topology"])
    if estimate["slices"] > 1:
        topology = f"{estimate['slices']} x {topology}"
    length, batch_size = estimate["length"], estimate["batch_size"]
    dtype, remat = html.escape(estimate["dtype"]), html.escape(estimate["remat"])
    return f"""<div class="estimate" id="estimate"><style>{ESTIMATE_STYLE}</style>
<h2>The TPU compiler's estimate for {topology}</h2>
<p class="note">Nothing here was measured. {_mesh(estimate)} · batch {batch_size:,} × {length} ·
{dtype} · remat {remat}</p>{"".join(parts)}</div>"""


def _figures_and_tables(estimate: Fields) -> str:
    collectives = "<p>none</p>"
    if estimate["collectives"]:
        collectives = _table(COLLECTIVES, estimate["collectives"])
    memory = [{"what": label, "bytes": estimate["memory"][name]} for name, label in MEMORY.items()]
    return f"""<div class="figures">{_figures(estimate)}</div>
<p class="note">{_explanation(estimate)}</p>
<h2>Memory of a device</h2>{_table(MEMORIES, memory)}
<h2>Costliest operations</h2>{_table(OPERATIONS, estimate["operations"])}
<h2>Collectives</h2>{collectives}"""


def _figures(estimate: Fields) -> str:
    step, mfu = estimate["timing"]["step"], estimate["mfu"]
    tokens = estimate["tokens_per_second"]
    memory, available = _memory_bytes(estimate), estimate["memory"]["available"]
    boxes = [
        figure_box("estimated-step", "a step, estimated", f"{1e3 * step:,.2f} ms", step),
        figure_box("estimated-mfu", "model FLOP utilization, estimated", f"{mfu:.1%}", mfu),
        figure_box("estimated-tokens", "tokens a second", f"{tokens:,.0f}", tokens),
        figure_box("estimated-memory", "of a device's memory", f"{memory / available:.0%}", memory),
    ]
    return "".join(boxes)


def _explanation(estimate: Fields) -> str:
    """Return the parts of the step's time, and what the estimate leaves out."""
    timing = estimate["timing"]
    model_flops = sum(estimate["model_flops"].values())
    parts = [
        f"computation {_ms(timing['compute'])}, kernels {_ms(timing['kernels'])}, "
        f"collectives {_ms(timing['collectives'])}, "
        f"and {_ms(timing['overlapped'])} of them beside other work",
        f"{timing['unestimated_count']} operations without cycles, "
        f"{1e3 * timing['unestimated']:,.3f} ms by bytes",
        f"model {model_flops / 1e12:,.2f} TFLOP a step",
        f"the program's products outside kernels {estimate['program_flops'] / 1e12:,.2f} TFLOP",
    ]
    if timing["unstated_kernels"]:
        parts.append(
            f"{timing['unstated_kernels']} kernels state no cost: too little is counted for them"
        )
    if timing["unknown_loops"]:
        loops = html.escape(", ".join(timing["unknown_loops"]))
        parts.append(f"loops of unknown length, counted as one pass: {loops}")
    return "; ".join(parts) + "."


def _largest_batch(largest: Fields) -> str:
    text = f"{largest['batch_size']:,} rows fit"
    if largest["refused"]:
        text += f", {largest['refused']:,} does not"
    return f"<h2>Largest batch</h2><p>{text}.</p>"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms"


def _mesh(estimate: Fields) -> str:
    axes = [f"{name} {size}" for name, size in estimate["mesh"].items() if size > 1]
    return f"{estimate['chips']} chips, {' × '.join(axes) or 'one device'}"


def _memory_bytes(estimate: Fields) -> int:
    return sum(estimate["memory"][name] for name in MEMORY)


def _milliseconds(operation: Fields) -> str:
    return f"{1e3 * operation['seconds']:,.3f}"


def _times(operation: Fields) -> str:
    return f"{operation['times']:,}"


def _axes(collective: Fields) -> str:
    return " × ".join(collective["axes"]) or NOTHING


def _overlaps(collective: Fields) -> str:
    return "yes" if collective["overlapped"] else "no"


def _step_time(layout: Fields) -> str:
    if not layout["fits"]:
        return "does not fit"
    return f"{1e3 * layout['timing']['step']:,.2f}"


def _utilization(layout: Fields) -> str:
    if not layout["fits"]:
        return NOTHING
    return f"{100 * layout['mfu']:.1f}"


def _memory(layout: Fields) -> str:
    if not layout["fits"]:
        return NOTHING
    return f"{_memory_bytes(layout) / 2**30:.2f}"


def _phase_hours(phase: Fields) -> str:
    return NOTHING if phase["seconds"] is None else f"{phase['seconds'] / 3600:,.1f}"


def _of_estimate(column: Column) -> Column:
    """Return a column of the estimates that phases have."""
    return column._replace(text=lambda phase: column.text(phase["estimate"]))


# Headings end with the unit of their numbers.
MEMORIES = (
    Column("what", lambda part: part["what"]),
    Column("GiB", lambda part: f"{part['bytes'] / 2**30:,.3f}", is_number=True),
)
OPERATIONS = (
    Column("share, %", lambda operation: f"{100 * operation['share']:.1f}", is_number=True),
    Column("time, ms", _milliseconds, is_number=True),
    Column("runs", _times, is_number=True),
    Column("phase", lambda operation: operation["phase"]),
    Column("part of the model", lambda operation: operation["where"]),
    Column("operation", lambda operation: operation["name"]),
    Column("by", lambda operation: operation["basis"]),
)
COLLECTIVES = (
    Column("time, ms", _milliseconds, is_number=True),
    Column("runs", _times, is_number=True),
    Column("one, MB", lambda collective: f"{collective['bytes'] / 1e6:,.2f}", is_number=True),
    Column("what", lambda collective: collective["kind"]),
    Column("mesh axes", _axes),
    Column("phase", lambda collective: collective["phase"]),
    Column("part of the model", lambda collective: collective["where"]),
    Column("beside other work", _overlaps),
)
LAYOUTS = (
    Column("step, ms", _step_time, is_number=True),
    Column("utilization, %", _utilization, is_number=True),
    Column("memory, GiB", _memory, is_number=True),
    Column("mesh", _mesh),
    Column("remat", lambda layout: layout["remat"]),
    Column("batch", lambda layout: f"{layout['batch_size']:,}", is_number=True),
)

PHASES = (
    Column("phase", lambda phase: str(phase["number"]), is_number=True),
    Column("steps", lambda phase: f"{phase['steps']:,}", is_number=True),
    Column("all steps, h", _phase_hours, is_number=True),
    Column("length", lambda phase: f"{phase['estimate']['length']:,}", is_number=True),
    *(_of_estimate(column) for column in LAYOUTS),
)


def _table(columns: Sequence[Column], objects: Sequence[Fields]) -> str:
    """Return a table with a line for each object."""
    headings = [column.heading for column in columns]
    lines = [_line("th", columns, headings)]
    for fields in objects:
        texts = [column.text(fields) for column in columns]
        lines.append(_line("td", columns, texts))
    return f"<table>{''.join(lines)}</table>"


def _line(tag: str, columns: Sequence[Column], texts: Sequence[str]) -> str:
    cells = []
    for column, text in zip(columns, texts, strict=True):
        side = ' class="number"' if column.is_number else ""
        cells.append(f"<{tag}{side}>{html.escape(text)}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"
