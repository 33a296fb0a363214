"""Cutting of long documents into stretches, each of which is then a document of its own."""

import unicodedata
from collections.abc import Iterator


def cut(sentences: list[str], size: int) -> Iterator[list[str]]:
    """Yield the stretches of a document, each a list of sentences of about `size` characters.

    0: the document is not cut. No sentence is cut unless it is longer than `size` itself; a last
    stretch that would be shorter than half of `size` belongs to the one before it. A document
    without sentences gives no stretch.
    """
    if not size:
        if sentences:
            yield sentences
        return
    # From the front and not in equal parts, so that a document that grows at its end keeps its
    # first stretches, and these stay in their split.
    complete: list[str] = []
    stretch: list[str] = []
    length = 0
    for sentence in _bounded(sentences, size):
        stretch.append(sentence)
        length += len(sentence)
        if length >= size:
            if complete:
                yield complete
            complete, stretch, length = stretch, [], 0
    if complete and length >= size / 2:
        yield complete
        complete = []
    if complete or stretch:
        yield complete + stretch


def _bounded(sentences: list[str], size: int) -> Iterator[str]:
    """The sentences; one of more than `size` characters in parts of at most so many."""
    for sentence in sentences:
        begin = 0
        while len(sentence) - begin > size:
            end = _part_end(sentence, begin, size)
            part = sentence[begin:end].strip()
            # White space between two words may be longer than a part.
            if part:
                yield part
            begin = end
        yield sentence[begin:].strip()


def _part_end(sentence: str, begin: int, size: int) -> int:
    """The end of the part that starts at `begin`: after the last space, else between characters."""
    limit = begin + size
    # In the second half only, so that no part is very short.
    space = sentence.rfind(" ", begin + size // 2, limit)
    if space >= 0:
        return space + 1
    end = limit
    # A mark belongs to the letter before it.
    while end > begin + 1 and unicodedata.category(sentence[end])[0] == "M":
        end -= 1
    return end
