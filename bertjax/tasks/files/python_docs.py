"""A task that needs no download: which package of the standard library is a docstring from?"""

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
CHARACTERS = 400  # of a docstring that are kept


def rows(split: str) -> Iterator[TableRow]:
    """`text`, a docstring's first paragraph, and `label`, one of `PACKAGES`; each text once.

    The split is by a hash of the text: of 10 parts `validation` and `test` have one each, `train`
    the others.
    """
    for row in _rows():
        part = hashlib.blake2b(row.values["text"].encode(), digest_size=8).digest()[0] % 10
        if {0: "validation", 1: "test"}.get(part, "train") == split:
            yield row


@lru_cache(maxsize=1)
def _rows() -> tuple[TableRow, ...]:
    found: dict[str, TableRow] = {}
    for parts, docstrings in modules():
        for number, docstring in enumerate(docstrings if parts[0] in PACKAGES else ()):
            text = " ".join(docstring.partition("\n\n")[0].split())[:CHARACTERS]
            if text:
                found.setdefault(
                    text,
                    TableRow(
                        "/".join(parts), number, {"text": text, "label": parts[0]}, "docstring"
                    ),
                )
    return tuple(found.values())
