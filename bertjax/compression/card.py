"""The card of a compressed model: `card.json`, and the model card `README.md` of Hugging Face.

Both have the same content: data, settings, the figure, bytes and latency before and after, the
licence, and how it was made.
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from etils import epath

from bertjax.compression.figures import Figure
from bertjax.compression.gate import percent, relative_loss
from bertjax.compression.latency import Latency
from bertjax.errors import check
from bertjax.storage import write_whole

CARD, README = "card.json", "README.md"
UNKNOWN_LICENSE = "unknown"
"""The identifier of Hugging Face for a licence that nobody has stated."""
MAX_README_BYTES = 1_000_000


@dataclass(frozen=True)
class Variant:
    """A model in the runtime that it was measured in."""

    name: str
    """Its form in words, such as `int8 per channel`."""
    runtime: str
    """The runtime with its version."""
    bytes: int
    """Size of the files of the model, without tokenizer and card."""
    figure: Figure
    latency: tuple[Latency, ...] = ()


@dataclass(frozen=True)
class Card:
    """What is to be known of a compressed model."""

    title: str
    command: str
    """The command, or the call, that made it."""
    source: str
    """The model that it was made of."""
    settings: Mapping[str, Any]
    data: Sequence[str]
    """The data that took part: what was calibrated, trained and measured on, in words."""
    before: Variant
    after: Variant
    max_loss: float | None = None
    """The bound on the loss, as a share; None if there was none."""
    license: str = UNKNOWN_LICENSE
    threads: int = 0
    """Threads of each runtime."""
    tags: Sequence[str] = ()
    notes: Sequence[str] = ()
    """Sentences that the user must know, such as which layers stayed in float."""
    machine: str = field(default_factory=lambda: machine())

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `card.json`."""
        values = asdict(self)
        values["loss"] = relative_loss(self.before.figure, self.after.figure)
        values["table"] = table_lines(self)
        return values


def machine() -> str:
    """Return this machine's processor in words, with its instructions for products of int8."""
    name, extensions = platform.processor() or platform.machine(), ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return name
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        if key.strip() == "flags":
            # Without them ONNX Runtime's products of int8 may overflow 16 bits: see
            # https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
            known = {"avx2", "avx512_vnni", "avx_vnni", "amx_int8"}
            extensions = " ".join(sorted(known & set(value.split())))
    return f"{name} ({extensions})" if extensions else name


def rows_of_table(before: Variant, after: Variant) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of the table: what, before, after, and the comparison of the two."""
    share = after.bytes / before.bytes if before.bytes else 0.0
    yield "bytes", f"{before.bytes:,}", f"{after.bytes:,}", f"{100 * share:.1f} %"
    old, new = before.figure, after.figure
    loss = relative_loss(old, new)
    change = f"{percent(abs(loss))} {'worse' if loss > 0 else 'better'}" if loss else "the same"
    yield old.name, f"{old.value:.4f}", f"{new.value:.4f}", change
    for first, second in zip(before.latency, after.latency, strict=True):
        what = f"ms, batch {first.batch_size}, length {first.length}"
        ratio = f"{first.median_ms / second.median_ms:.2f} times as fast"
        yield what, _milliseconds(first), _milliseconds(second), ratio


def _milliseconds(latency: Latency) -> str:
    return f"{latency.median_ms:.2f} ({latency.p99_ms:.2f})"


def table_lines(card: Card) -> list[str]:
    """Return the table as lines of text for a terminal."""
    rows = [("", card.before.name, card.after.name, "")]
    rows += rows_of_table(card.before, card.after)
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def write_card(folder: epath.Path, card: Card) -> None:
    """Write `card.json` and `README.md` into the folder of a model."""
    content = json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / CARD, content.encode())
    write_whole(folder / README, readme_text(card).encode())


def readme_text(card: Card) -> str:
    """Return the model card in the form of Hugging Face: YAML, then Markdown."""
    tags = ["bertjax", *card.tags]
    # A string of JSON is one of YAML too, whatever characters a name has.
    front = [
        "---",
        f"license: {json.dumps(card.license)}",
        f"tags: {json.dumps(tags)}",
        f"metrics: {json.dumps([card.after.figure.name])}",
        "---",
        "",
    ]
    lines = [f"# {_text(card.title)}", "", f"Made by bertjax of `{_text(card.source)}`:", ""]
    lines += [f"    {_text(card.command)}", ""]
    lines += [_text(note) for note in card.notes]
    lines += ["", "## Figures", "", *_markdown_table(card), "", *_explanations(card)]
    lines += ["", "## Data", "", *(f"- {_text(each)}" for each in card.data)]
    lines += ["", "## Settings", "", "| setting | value |", "| --- | --- |"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in card.settings.items()]
    lines += ["", "## Licence", "", _license_sentence(card), ""]
    return "\n".join([*front, *lines])


def _markdown_table(card: Card) -> list[str]:
    lines = [
        f"| | {_cell(card.before.name)} | {_cell(card.after.name)} | |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in rows_of_table(card.before, card.after):
        lines.append(f"| {' | '.join(map(_cell, row))} |")
    return lines


def _explanations(card: Card) -> list[str]:
    figure = card.after.figure
    better = "higher" if figure.higher_is_better else "lower"
    lines = [
        f"`{_text(figure.name)}` ({better} is better) was measured on {_text(figure.measured_on)},"
        f" {figure.count:,} in all, in {_text(card.before.runtime)} and"
        f" {_text(card.after.runtime)}."
    ]
    if card.max_loss is not None:
        lines.append(f"A loss of at most {percent(card.max_loss)} was allowed.")
    if card.after.latency:
        calls = sorted(each.calls for each in card.after.latency)
        lines.append(
            "Latency is the median of a call, with the 99th percentile in brackets: each model in"
            f" a process of its own, by turns, with {card.threads} threads,"
            f" {calls[0]} to {calls[-1]} calls a shape, on {_text(card.machine)}."
        )
    return lines


def _license_sentence(card: Card) -> str:
    if card.license == UNKNOWN_LICENSE:
        return "Not stated: that of the model it was made of applies."
    return f"{_text(card.license)}, as stated for the model it was made of."


def _text(value: object) -> str:
    """Return a value on one line, so that a name cannot begin a heading or a table."""
    return " ".join(str(value).split())


def _cell(value: object) -> str:
    return _text(value).replace("|", "\\|")


def license_of(folder: epath.Path) -> str:
    """Return the licence that the model card of a source names; `unknown` if it names none.

    Only the field `license` of its YAML is read, and only a plain identifier is taken.
    """
    path = folder / README
    if not path.is_file() or path.stat().length > MAX_README_BYTES:
        return UNKNOWN_LICENSE
    lines = path.read_bytes().decode(errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return UNKNOWN_LICENSE
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, colon, value = line.partition(":")
        name = value.strip().strip("\"'")
        if key == "license" and colon and _is_license(name):
            return name
    return UNKNOWN_LICENSE


def check_license(name: str) -> None:
    """Raise `UserError` unless `name` can be an identifier of a licence."""
    check(
        _is_license(name),
        where="--license",
        found=repr(name[:40]),
        expected="an identifier such as apache-2.0",
    )


def _is_license(name: str) -> bool:
    return 0 < len(name) <= 60 and all(char.isalnum() or char in ".-+" for char in name)
