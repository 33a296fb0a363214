"""Format of a file by the ending of its name."""

import posixpath

from bertjax.storage import TAR_ENDINGS, compression_of

FORMAT_BY_ENDING = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
ARCHIVES = ("zip", "tar")
"""Formats of files that hold files."""


def format_of(name: str, asked: str) -> str:
    """Return the format of the file `name`, where `data.format` is `asked`.

    An archive is one whatever is asked: this is the format of the files in it.
    """
    stem, ending = posixpath.splitext(name.lower())
    if ending in TAR_ENDINGS:
        return "tar"
    if compression_of(name):
        ending = posixpath.splitext(stem)[1]
    if ending.removeprefix(".") in ARCHIVES:
        return ending.removeprefix(".")
    return FORMAT_BY_ENDING.get(ending, "bert") if asked == "auto" else asked
