"""Forms of tags: how a tag of an entity is written, as B-PER, B_PER, PER-B or b-per."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

OUTSIDE = "O"
"""The tag of words that are not part of an entity."""
SEPARATORS = "-_:/|."
"""Characters between the prefix of a tag and its type."""
PREFIXES = frozenset("BIESLUMW")
# The names of the last, the only and the inner word of an entity in BILOU, BMES and BMEWO.
SYNONYMS = str.maketrans("LUMW", "ESIS")
NO_TYPE = "_"
"""The type of entities whose tags have none, such as B and I; it is that of seqeval."""


class Parts(NamedTuple):
    """The two parts of a tag."""

    prefix: str
    """O: outside of entities. B, I, E, S: the first, an inner, the last, the only word of one."""
    type: str
    """The type of the entity; `_` for a tag without a type; empty for O."""


OUTSIDE_PARTS = Parts(OUTSIDE, "")


@dataclass(frozen=True)
class TagForm:
    """The form of a data set's tags.

    A tag is O, a prefix alone, or a prefix and a type with one of `SEPARATORS` between them. The
    prefix may be a small letter.
    """

    type_first: bool = False
    """True for PER-B, False for B-PER."""
    capitals: bool = False
    """True if types are read in capitals: all tags are in small letters, as b-per, and the type
    PER was meant.
    """

    def parts(self, tag: str) -> Parts | None:
        """Return the parts of a tag; None for a tag that does not have this form."""
        split = _split(tag, self.type_first)
        if split is None:
            return None
        letter, name = split
        if letter == OUTSIDE:
            return OUTSIDE_PARTS
        if self.capitals:
            name = name.upper()
        return Parts(letter.translate(SYNONYMS), name or NO_TYPE)


def form_of(tags: Iterable[str]) -> TagForm | None:
    """Return the form of a data set's different tags; None if they are not all tags of entities.

    If both B-PER and PER-B are possible, the prefix is the first letter, as in seqeval. The only
    exception are types of one letter, as in S-B and S-I, which are of type S: with the prefix first
    no tag has B or I, and with the type first one type has both.
    """
    different = set(tags)
    if _are_other_letters(different):
        return None
    is_possible = {}
    for type_first in (False, True):
        is_possible[type_first] = all(_split(tag, type_first) for tag in different)
    if not any(is_possible.values()):
        return None
    type_first = not is_possible[False]
    if all(is_possible.values()):
        letters = set().union(*_prefixes_by_type(different, type_first=False).values())
        is_type_first = any(
            {"B", "I"} <= prefixes
            for prefixes in _prefixes_by_type(different, type_first=True).values()
        )
        type_first = is_type_first and not letters & {"B", "I"}
    # Only if all tags are in small letters: otherwise two types might differ in them alone.
    capitals = all(tag == tag.lower() for tag in different - {OUTSIDE})
    return TagForm(type_first, capitals)


def _are_other_letters(tags: set[str]) -> bool:
    """Return whether the tags are letters alone and none is B, such as E and M for languages.

    In every scheme that has one of E, S, L, U, M and W without a type, some word begins an entity;
    only IOB1 and IOE have I, and perhaps E, without B. These are written in capitals.
    """
    inside = tags - {OUTSIDE, OUTSIDE.lower()}
    if not inside or not all(len(tag) == 1 for tag in inside):
        return False
    return not {"B", "b"} & inside and not ("I" in inside and inside <= {"I", "E"})


def misfits(tags: Iterable[str]) -> list[str]:
    """Return the tags of a data set that are not of entities although others are, sorted.

    Others are if one type has tags with B and with another prefix, as B-PER and I-PER.
    """
    different = set(tags)
    if form_of(different):
        return []
    for type_first in (False, True):
        for name, prefixes in _prefixes_by_type(different, type_first).items():
            if name and "B" in prefixes and len(prefixes) > 1:
                return sorted(tag for tag in different if not _split(tag, type_first))
    return []


def _prefixes_by_type(tags: Iterable[str], type_first: bool) -> dict[str, set[str]]:
    """Return the prefixes of each type, of those tags that are of entities and not O."""
    prefixes: dict[str, set[str]] = {}
    for tag in tags:
        split = _split(tag, type_first)
        if split and split[0] != OUTSIDE:
            prefixes.setdefault(split[1], set()).add(split[0])
    return prefixes


def _split(tag: str, type_first: bool) -> tuple[str, str] | None:
    """Return the prefix of a tag as a capital letter, and its type as it is written."""
    if tag in (OUTSIDE, OUTSIDE.lower()):
        return OUTSIDE, ""
    if type_first:
        letter, separator, name = tag[-1:], tag[-2:-1], tag[:-2]
    else:
        # Cut at the first separator: a type may have separators of its own, as B-PER-SUB.
        letter, separator, name = tag[:1], tag[1:2], tag[2:]
    letter = letter.upper()
    if letter not in PREFIXES or separator not in SEPARATORS:
        return None
    return letter, name
