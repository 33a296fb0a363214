"""Reading of files whose lines are a label, a space and a text, as TREC and fastText have them."""

from collections.abc import Iterator

from bertjax.errors import check
from bertjax.tasks.files.lines import unmarked_lines
from bertjax.tasks.files.row import TableRow

FASTTEXT_PREFIX = "__label__"
"""The beginning of each label in files of fastText (https://fasttext.cc/docs/en/options.html)."""


def read_label_text(name: str, encoding: str) -> Iterator[TableRow]:
    """Yield a row with `label`, `coarse_label` and `text` for each line that is not empty.

    The label goes up to the first space or tab. `coarse_label` is its part before the first colon:
    TREC's labels are a class and a class within it (`DESC:manner`), and its usual figures are those
    of the six classes. In files of fastText a line may have several labels, each with the prefix
    `__label__`, which is removed; then `label` is a list, and `coarse_label` is missing.

    Raises `UserError` for a line that has no text behind its label.
    """
    for line in unmarked_lines(name, encoding):
        if not line.text.strip():
            continue
        label, text = _parted(line.text.strip())
        labels = [label]
        while label.startswith(FASTTEXT_PREFIX) and text.startswith(FASTTEXT_PREFIX):
            label, text = _parted(text)
            labels.append(label)
        check(
            text,
            where=f"{name}, line {line.number}",
            found=f"the label {label[:40]!r} alone",
            expected="a label, a space and a text",
        )
        labels = [label.removeprefix(FASTTEXT_PREFIX) for label in labels]
        if len(labels) == 1:
            coarse = labels[0].partition(":")[0]
            values = {"label": labels[0], "coarse_label": coarse, "text": text}
            yield TableRow(name, line.number, values)
        else:
            yield TableRow(name, line.number, {"label": labels, "text": text})


def _parted(text: str) -> tuple[str, str]:
    """Return the first word of a text, and what comes after it, without the spaces between."""
    first, *rest = text.split(maxsplit=1)
    return first, rest[0] if rest else ""
