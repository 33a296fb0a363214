"""A data set that needs no download: from which package of the standard library is a docstring?"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache

from bertjax.data.corpus.python_docs import modules
from bertjax.tasks.files.tables import TableRow

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
"""Characters of a docstring that are kept."""


def rows(split: str) -> Iterator[TableRow]:
    """Yield table rows with `text`, a docstring's first paragraph, and `label`, its package.

    The label is one of `PACKAGES`; each text is there once. The split follows from a hash of the
    text: of 10 parts `validation` and `test` have one each, `train` has the others.
    """
    for row in _all_rows():
        if _split_of(row.values["text"]) == split:
            yield row


def _split_of(text: str) -> str:
    # By content, so that no text moves between splits from one Python version to the next.
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
