"""Where the phases of a run begin in their corpora.

A corpus that several phases read is read on: a phase begins after the rows that the phases before
it have taken. So no row is seen twice before all have been seen once, whichever phases read them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bertjax.data.order import BLOCK, MIXTURE, Place, Reading


class Part(NamedTuple):
    """A phase as a reader of corpora."""

    begin: int
    """Its first step."""
    rows: int
    """Number of rows of all its batches."""
    corpora: tuple[str, ...]
    """A digest of each of its corpora."""
    quotas: tuple[int, ...]
    """The quota of each corpus in a block of the mixture."""


class _Stretch(NamedTuple):
    """Phases that follow one another and read the same mixture."""

    part: Part
    rows: int
    places: tuple[Place, ...]


def readings(parts: Sequence[Part]) -> list[Reading]:
    """Return where each phase begins to read; the first one as a run without phases.

    Whether two phases read the same corpus is told by its digest, so a corpus may be moved between
    two starts of a run. After a mixture its corpora go on with the next whole block.
    """
    found: list[Reading] = []
    taken: dict[tuple[str, int], int] = {}
    keys: dict[tuple[str, int], tuple[int, ...]] = {}
    stretch: _Stretch | None = None
    for part in parts:
        if stretch and (stretch.part.corpora, stretch.part.quotas) == (part.corpora, part.quotas):
            first_row, places = stretch.rows, stretch.places
        else:
            if stretch:
                _add_taken(taken, stretch)
            first_row, places = 0, _places(part, taken, keys)
        found.append(Reading(part.begin, first_row, places))
        stretch = _Stretch(part, first_row + part.rows, places)
    return found


def _names(part: Part) -> list[tuple[str, int]]:
    """Return a name of each corpus: its digest, and a number where a mixture has it twice."""
    names: list[tuple[str, int]] = []
    for index, digest in enumerate(part.corpora):
        names.append((digest, part.corpora[:index].count(digest)))
    return names


def _places(
    part: Part, taken: dict[tuple[str, int], int], keys: dict[tuple[str, int], tuple[int, ...]]
) -> tuple[Place, ...]:
    places = []
    for index, name in enumerate(_names(part)):
        # A corpus keeps the order in which it was read first: alone, or in a mixture.
        key = keys.setdefault(name, () if len(part.corpora) == 1 else (index, MIXTURE))
        places.append(Place(key, taken.get(name, 0)))
    return tuple(places)


def _add_taken(taken: dict[tuple[str, int], int], stretch: _Stretch) -> None:
    """Count the rows that phases of one mixture have taken of each corpus."""
    rows = [stretch.rows]
    if len(stretch.part.corpora) > 1:
        # The slots of a block that was begun are taken in any order, so it counts as a whole.
        blocks = -(-stretch.rows // BLOCK)
        rows = [blocks * quota for quota in stretch.part.quotas]
    for name, count in zip(_names(stretch.part), rows, strict=True):
        taken[name] = taken.get(name, 0) + count
