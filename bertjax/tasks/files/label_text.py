"""Reading of files whose lines are a label, a space and a text, as TREC and fastText have them."""

import re
from collections.abc import Iterator
from typing import Any

from bertjax.errors import check
from bertjax.tasks.files.lines import unmarked_lines
from bertjax.tasks.files.row import TableRow

FASTTEXT_PREFIX = "__label__"
"""The beginning of each label in files of fastText (https://fasttext.cc/docs/en/options.html)."""
SPACE = " \t\v\f\r\0"
"""What separates words in fastText. Other white space, as U+3000, may be in a label."""
_FASTTEXT_LABEL = re.compile(rf"(?<![^{SPACE}]){FASTTEXT_PREFIX}([^{SPACE}]*)[{SPACE}]*")
_SPACES = re.compile(f"[{SPACE}]+")


class WholeLabel(str):
    """A label of fastText: one class, even if it has a separator of classes in it."""


def read_label_text(name: str, encoding: str) -> Iterator[TableRow]:
    """Yield a row with `label`, `coarse_label` and `text` for each line that is not empty.

    The label goes up to the first space or tab. `coarse_label` is its part before the first colon:
    TREC's labels are a class and a class within it (`DESC:manner`), and its usual figures are those
    of the six classes.

    A file is fastText's if its first line has a word that begins with `__label__`. As in fastText,
    all such words of a line are labels, wherever they stand, and not part of the text; they lose
    the prefix. Of several labels, `label` is a list, and `coarse_label` is missing. A line without
    a label has the label None.

    Raises `UserError` for a line that has no text beside its label, for a label without a name, and
    for a label of fastText in another file.
    """
    is_fasttext = None
    for line in unmarked_lines(name, encoding):
        text = line.text.strip()
        if not text:
            continue
        has_labels = FASTTEXT_PREFIX in text and _FASTTEXT_LABEL.search(text) is not None
        where = f"{name}, line {line.number}"
        if is_fasttext is None:
            is_fasttext = has_labels
        check(
            is_fasttext or not has_labels,
            where=where,
            found=f"a label that begins with {FASTTEXT_PREFIX}",
            expected="none, as in the lines before; or one in the first line",
        )
        values = _fasttext_values(text, where) if is_fasttext else _values(text)
        check(
            values["text"],
            where=where,
            found=f"the label {_first_word(text)[:40]!r} alone",
            expected="a label, a space and a text",
        )
        yield TableRow(name, line.number, values)


def _values(text: str) -> dict[str, Any]:
    label = _first_word(text)
    rest = text[len(label) :].strip()
    return {"label": label, "coarse_label": label.partition(":")[0], "text": rest}


def _first_word(text: str) -> str:
    return _SPACES.split(text, maxsplit=1)[0]


def _fasttext_values(text: str, where: str) -> dict[str, Any]:
    labels = [WholeLabel(label) for label in _FASTTEXT_LABEL.findall(text)]
    check(
        all(labels),
        where=where,
        found=f"{FASTTEXT_PREFIX} without a name",
        expected=f"a label such as {FASTTEXT_PREFIX}NAME",
    )
    rest = _FASTTEXT_LABEL.sub("", text).strip()
    if len(labels) > 1:
        return {"label": labels, "text": rest}
    label = labels[0] if labels else None
    coarse = WholeLabel(label.partition(":")[0]) if label else None
    return {"label": label, "coarse_label": coarse, "text": rest}
