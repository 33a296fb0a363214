"""A task that needs no download: which package of the standard library is a docstring from?"""

import hashlib
from collections.abc import Iterator

from bertjax.data.python_docs import modules
from bertjax.tasks.tables import Row

PACKAGES = ("asyncio", "email", "idlelib", "logging", "multiprocessing", "tkinter", "unittest", "xml")
CHARACTERS = 400  # of a docstring that are kept


def rows(split: str) -> Iterator[Row]:
    """`text`, a docstring's first paragraph, and `label`, one of `PACKAGES`; each text once.

    The split is by a hash of the text: of 10 parts `validation` and `test` have one each, `train` the others.
    """
    seen: set[str] = set()
    for parts, docstrings in modules():
        if parts[0] not in PACKAGES:
            continue
        for number, docstring in enumerate(docstrings):
            text = " ".join(docstring.partition("\n\n")[0].split())[:CHARACTERS]
            if text and text not in seen:
                seen.add(text)
                part = hashlib.blake2b(text.encode(), digest_size=8).digest()[0] % 10
                if {0: "validation", 1: "test"}.get(part, "train") == split:
                    yield Row("/".join(parts), number, {"text": text, "label": parts[0]}, "docstring")
