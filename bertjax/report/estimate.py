"""The compiler's estimate of a step, as `bertjax compile` left it in `compile.json`: a section, or
a page.
"""

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from etils import epath

from bertjax.estimate.answer_fields import FILE, MEMORY
from bertjax.storage import read_json, write_whole

PAGE = "compile.html"
ESTIMATE_STYLE = """
.estimate th { text-align: left; font-weight: 600; padding: 2px 18px 2px 0; } .estimate table { width: 100%; }
.estimate h2 { margin-top: 18px; } .estimate td.number, .estimate th.number { text-align: right; }
"""

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]
"""A heading and what stands below it; a heading that ends in a unit is of numbers."""


def section(run_dir: epath.Path) -> str:
    """The estimate of a run folder as HTML, or '' where there is none; `UserError` where the file
    is broken.
    """
    path = run_dir / FILE
    return body(read_json(path)) if path.exists() else ""


def write_estimate_page(run_dir: epath.Path, style: str) -> epath.Path:
    """Write `compile.html` for a folder that is no run; returns its path."""
    name = html.escape(run_dir.name)
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: bertjax compile</title><style>{style}</style></head><body>
<h1>{name}</h1>{section(run_dir)}</body></html>"""
    write_whole(run_dir / PAGE, page.encode())
    return run_dir / PAGE


def body(answer: Row) -> str:
    """The answer of `bertjax compile` as HTML."""
    found = answer["estimate"]
    inside = (
        _estimate(found)
        if found["fits"]
        else f"<p>Does not fit: {html.escape(found['refusal'])}</p>"
    )
    extra = _largest(answer["largest"]) if answer.get("largest") else ""
    if answer.get("search"):
        extra += f"<h2>Layouts tried, the quickest first</h2>{_table(LAYOUTS, answer['search'])}"
    slices = f"{found['slices']} x " if found["slices"] > 1 else ""
    return f"""<div class="estimate" id="estimate"><style>{ESTIMATE_STYLE}</style>
<h2>The TPU compiler's estimate for {slices}{html.escape(found["topology"])}</h2>
<p class="note">Nothing here was measured. {_mesh(found)} · batch {found["batch_size"]:,} × {found["length"]} ·
{html.escape(found["dtype"])} · remat {html.escape(found["remat"])}</p>{inside}{extra}</div>"""


def _estimate(found: Row) -> str:
    timing, memory = found["timing"], found["memory"]
    total = sum(memory[name] for name in MEMORY)
    figures = (
        ("estimated-step", "a step, estimated", f"{1e3 * timing['step']:,.2f} ms", timing["step"]),
        ("estimated-mfu", "model FLOP utilisation, estimated", f"{found['mfu']:.1%}", found["mfu"]),
        (
            "estimated-tokens",
            "tokens a second",
            f"{found['tokens_per_second']:,.0f}",
            found["tokens_per_second"],
        ),
        ("estimated-memory", "of a device's memory", f"{total / memory['available']:.0%}", total),
    )
    shown = "".join(
        f'<div class="figure"><b id="figure-{name}" data-value="{value}">{text}</b><span>{label}</span></div>'
        for name, label, text, value in figures
    )
    memories = [{"what": label, "bytes": memory[name]} for name, label in MEMORY.items()]
    return f"""<div class="figures">{shown}</div>
<p class="note">{_said(found)}</p>
<h2>Memory of a device</h2>{_table(MEMORIES, memories)}
<h2>Costliest operations</h2>{_table(OPERATIONS, found["operations"])}
<h2>Collectives</h2>{_table(COLLECTIVES, found["collectives"]) if found["collectives"] else "<p>none</p>"}"""


def _said(found: Row) -> str:
    timing, flops = found["timing"], found["model_flops"]
    model = sum(flops.values())
    parts = [
        f"computation {1e3 * timing['compute']:,.2f} ms, kernels {1e3 * timing['kernels']:,.2f} ms, collectives "
        f"{1e3 * timing['collectives']:,.2f} ms, and {1e3 * timing['overlapped']:,.2f} ms of them beside other work",
        f"{timing['unestimated_count']} operations without cycles, {1e3 * timing['unestimated']:,.3f} ms by bytes",
        f"model {model / 1e12:,.2f} TFLOP a step",
        f"the program's products outside kernels {found['program_flops'] / 1e12:,.2f} TFLOP",
    ]
    if timing["unstated_kernels"]:
        parts.append(
            f"{timing['unstated_kernels']} kernels state no cost: too little is counted for them"
        )
    if timing["unknown_loops"]:
        parts.append(
            f"loops of unknown length, counted as one pass: {html.escape(', '.join(timing['unknown_loops']))}"
        )
    return "; ".join(parts) + "."


def _largest(found: Row) -> str:
    refused = f", {found['refused']:,} does not" if found["refused"] else ""
    return f"<h2>Largest batch</h2><p>{found['batch_size']:,} rows fit{refused}.</p>"


def _mesh(found: Row) -> str:
    cut = (
        " × ".join(f"{name} {size}" for name, size in found["mesh"].items() if size > 1)
        or "one device"
    )
    return f"{found['chips']} chips, {cut}"


def _milliseconds(row: Row) -> str:
    return f"{1e3 * row['seconds']:,.3f}"


MEMORIES: tuple[Column, ...] = (
    ("what", lambda row: row["what"]),
    ("GiB", lambda row: f"{row['bytes'] / 2**30:,.3f}"),
)
OPERATIONS: tuple[Column, ...] = (
    ("share, %", lambda row: f"{100 * row['share']:.1f}"),
    ("time, ms", _milliseconds),
    ("runs", lambda row: f"{row['times']:,}"),
    ("phase", lambda row: row["phase"]),
    ("part of the model", lambda row: row["where"]),
    ("operation", lambda row: row["name"]),
    ("by", lambda row: row["basis"]),
)
COLLECTIVES: tuple[Column, ...] = (
    ("time, ms", _milliseconds),
    ("runs", lambda row: f"{row['times']:,}"),
    ("one, MB", lambda row: f"{row['bytes'] / 1e6:,.2f}"),
    ("what", lambda row: row["kind"]),
    ("mesh axes", lambda row: " × ".join(row["axes"]) or "–"),
    ("phase", lambda row: row["phase"]),
    ("part of the model", lambda row: row["where"]),
    ("beside other work", lambda row: "yes" if row["overlapped"] else "no"),
)
LAYOUTS: tuple[Column, ...] = (
    (
        "step, ms",
        lambda row: f"{1e3 * row['timing']['step']:,.2f}" if row["fits"] else "does not fit",
    ),
    ("utilisation, %", lambda row: f"{100 * row['mfu']:.1f}" if row["fits"] else "–"),
    (
        "memory, GiB",
        lambda row: f"{sum(row['memory'][n] for n in MEMORY) / 2**30:.2f}" if row["fits"] else "–",
    ),
    ("mesh", _mesh),
    ("remat", lambda row: row["remat"]),
    ("batch", lambda row: f"{row['batch_size']:,}"),
)
NUMBERS = ("%", "ms", "MB", "GiB", "runs", "batch")


def _table(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    sides = [' class="number"' if heading.endswith(NUMBERS) else "" for heading, _ in columns]
    heads = "".join(
        f"<th{side}>{heading}</th>" for side, (heading, _) in zip(sides, columns, strict=True)
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td{side}>{html.escape(show(row))}</td>"
            for side, (_, show) in zip(sides, columns, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{heads}</tr>{lines}</table>"
