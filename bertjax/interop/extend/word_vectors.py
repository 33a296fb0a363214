"""The vectors of wanted words, from a file; memory grows only with their number."""

from collections.abc import Collection

import numpy as np
from etils import epath

from bertjax.errors import UserError, check
from bertjax.given_files import place_of
from bertjax.interop.extend.word_vector_files import (
    VectorFormat,
    binary_entries,
    detect_format,
    opened,
    text_entries,
)
from bertjax.progress import Progress, silent


def read_word_vectors(
    path: epath.PathLike,
    wanted: Collection[str],
    width: int,
    *,
    file_format: VectorFormat = "auto",
    lowercase: bool = False,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """Return the vectors of the `wanted` words that the file has: float32 `[width]` by word.

    If a word has several entries, the first one counts. With `lowercase`, a word of the file that
    is not wanted as written may stand for its lower-case form, if the file lacks that form itself.
    If several words have the same lower-case form, the first one counts, because files are ordered
    by frequency. `auto` recognizes the format by the first line and by what follows it. Every entry
    is checked to be complete, but only the numbers of wanted words are read and checked to be
    finite.

    Raises `UserError`, naming the file and the line or entry, for another format, a vector width
    other than `width`, a file that is cut short, something that is not a finite number, and an
    entry that is too long.
    """
    path = place_of(path)
    kind = detect_format(path) if file_format == "auto" else file_format
    kept = _KeptVectors(wanted, lowercase)
    read_entries = binary_entries if kind == "word2vec-binary" else text_entries
    with opened(path) as file:
        for where, word, values in read_entries(path, file, kind, width, progress):
            kept.offer(where, word, values, width)
    return kept.vectors


class _KeptVectors:
    """The wanted vectors so far; a word as written has precedence over its lower-case form."""

    def __init__(self, wanted: Collection[str], lowercase: bool):
        self.wanted, self.lowercase = frozenset(wanted), lowercase
        self.vectors: dict[str, np.ndarray] = {}
        self._exact: set[str] = set()

    def offer(self, where: str, raw: bytes, values: bytes | memoryview, width: int) -> None:
        """Keep the vector of the word `raw` if it is wanted and has none yet."""
        # Published files have words that are not UTF-8. Their invalid bytes are replaced, and then
        # they match no wanted word.
        word = raw.decode(errors="replace")
        if word in self.wanted:
            if word not in self._exact:
                self._exact.add(word)
                self.vectors[word] = _numbers(where, values, width)
            return
        if self.lowercase:
            word = word.lower()
            if word in self.wanted and word not in self.vectors:
                self.vectors[word] = _numbers(where, values, width)


def _numbers(where: str, values: bytes | memoryview, width: int) -> np.ndarray:
    """Return a vector from its numbers as text (bytes), or as binary numbers (a memoryview)."""
    if isinstance(values, memoryview):
        # `astype` copies: a view would keep the whole block in memory.
        vector = np.frombuffer(values, "<f4").astype(np.float32)
    else:
        try:
            # A number that is too large for float32 becomes infinite, and is refused below.
            with np.errstate(over="ignore"):
                vector = np.array([float(value) for value in values.split(b" ")], np.float32)
        except ValueError as error:
            raise UserError(f"{where}: found no number ({error}), expected {width}") from error
    finite = np.isfinite(vector)
    check(
        finite.all(),
        where=where,
        found=f"{vector[~finite][:1]} as a float32",
        expected="finite numbers",
    )
    return vector
