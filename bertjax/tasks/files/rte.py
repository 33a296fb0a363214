"""Reading of the XML of the RTE challenges."""

from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from bertjax.errors import UserError, check
from bertjax.storage import opened
from bertjax.tasks.files.row import TableRow, listed

# GLUE too makes two classes of the three (arXiv 1804.07461, section 3.3).
ENTAILMENT = {
    "TRUE": "entailment",
    "YES": "entailment",
    "ENTAILMENT": "entailment",
    "FALSE": "not_entailment",
    "NO": "not_entailment",
    "UNKNOWN": "not_entailment",
    "CONTRADICTION": "not_entailment",
}
"""The label in GLUE for each label of the RTE challenges.

In the XML of the first challenge the label is the attribute `value`, in the later ones it is the
attribute `entailment`.
"""


def read_rte(name: str) -> Iterator[TableRow]:
    """Yield the pairs of a file of an RTE challenge, each with the line where it begins."""
    with opened(name) as file:
        content = file.read()
    yield from _RteParser(name).parse(content)


class _RteParser:
    """A parser for the XML of the RTE challenges: `<pair>`s of text `<t>` and hypothesis `<h>`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows: list[TableRow] = []
        self._pair: dict[str, Any] = {}
        self._line = 0
        self._text: list[str] = []
        # expat and not ElementTree, which does not tell the line of an element.
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text.append

    def parse(self, content: bytes) -> list[TableRow]:
        """Return the pairs in the content of a file, each with the line where it begins."""
        try:
            self._parser.Parse(content, True)
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise UserError(
                f"{self._name}, line {error.lineno}: found broken XML ({reason}),"
                " expected RTE's pairs"
            ) from error
        return self._rows

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        # Emptied and not replaced: the parser calls the `append` of this very list.
        self._text.clear()
        if tag != "pair":
            return
        self._line = self._parser.CurrentLineNumber
        value = attributes.get("entailment", attributes.get("value"))
        check(
            value is None or value.upper() in ENTAILMENT,
            where=f"{self._name}, line {self._line}",
            found=f"the label {value!r}",
            expected=f"one of {listed(ENTAILMENT)}",
        )
        self._pair = {
            "id": attributes.get("id", str(len(self._rows))),
            "label": None if value is None else ENTAILMENT[value.upper()],
            "task": attributes.get("task", ""),
        }

    def _end(self, tag: str) -> None:
        if tag in ("t", "h"):
            column = "sentence1" if tag == "t" else "sentence2"
            # expat gives a text in several parts. Line ends in it are the file's layout.
            self._pair[column] = " ".join("".join(self._text).split())
        elif tag == "pair":
            check(
                "sentence1" in self._pair and "sentence2" in self._pair,
                where=f"{self._name}, line {self._line}",
                found="a pair without <t> or <h>",
                expected="both",
            )
            self._rows.append(TableRow(self._name, self._line, dict(self._pair)))
