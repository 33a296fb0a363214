"""Limit of a document's length: a longer one is read as several."""

from collections import Counter
from collections.abc import Iterator

from bertjax.data.corpus.cleaning import LONG_DOCUMENT_CUTS

# So that memory is bounded.
MAX_DOCUMENT_CHARACTERS = 1 << 20


def split_long(text: str, counts: Counter[str]) -> Iterator[str]:
    """The text in parts of at most `MAX_DOCUMENT_CHARACTERS`; a shorter text is one part.

    Each cut between two parts is counted (`LONG_DOCUMENT_CUTS`).
    """
    begin = 0
    while len(text) - begin > MAX_DOCUMENT_CHARACTERS:
        end = _part_end(text, begin)
        yield text[begin:end]
        counts[LONG_DOCUMENT_CUTS] += 1
        begin = end
    yield text[begin:] if begin else text


def _part_end(text: str, begin: int) -> int:
    """The end of the part that starts at `begin`.

    The part ends at the last empty line within the limit, else at the last line end, else at the
    last space.
    """
    limit = begin + MAX_DOCUMENT_CHARACTERS
    for separator in ("\n\n", "\n", " "):
        # The search covers only the second half of the part, so that no part is very short.
        position = text.rfind(separator, begin + MAX_DOCUMENT_CHARACTERS // 2, limit)
        if position >= 0:
            return position + 1
    return limit
