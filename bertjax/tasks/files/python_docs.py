"""Data set without a download: docstrings of the standard library, labelled with their package."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache

from bertjax.data.corpus.python_docs import modules
from bertjax.tasks.files.row import TableRow

PACKAGES = (
    "asyncio",
    "email",
    "idlelib",
    "logging",
    "multiprocessing",
    "tkinter",
    "unittest",
    "xml",
)
MAX_CHARACTERS = 400
"""Maximum number of characters of a docstring that are kept."""


def rows(split: str) -> Iterator[TableRow]:
    """Yield table rows with `text`, a docstring's first paragraph, and `label`, its package.

    The label is one of `PACKAGES`. Each text occurs once. A hash of the text decides its split:
    about 1/10 of the texts are in `validation`, 1/10 in `test`, and 8/10 in `train`.
    """
    for row in _all_rows():
        if _split_of(row.values["text"]) == split:
            yield row


def _split_of(text: str) -> str:
    # The hash is of the content, so a text stays in its split in every Python version.
    part = hashlib.blake2b(text.encode(), digest_size=8).digest()[0] % 10
    return {0: "validation", 1: "test"}.get(part, "train")


@lru_cache(maxsize=1)  # parsing the standard library takes seconds, and each split needs it
def _all_rows() -> tuple[TableRow, ...]:
    by_text: dict[str, TableRow] = {}
    for parts, docstrings in modules():
        if parts[0] not in PACKAGES:
            continue
        for number, docstring in enumerate(docstrings):
            paragraph = docstring.partition("\n\n")[0]
            text = " ".join(paragraph.split())[:MAX_CHARACTERS]
            # Only once: the same text under two labels could not be learned.
            if text and text not in by_text:
                values = {"text": text, "label": parts[0]}
                by_text[text] = TableRow("/".join(parts), number, values, "docstring")
    return tuple(by_text.values())
