"""Schemes of tags (IOB1, IOB2, IOE1, IOE2, IOBES): which one tags are in, and its rules."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Literal, NamedTuple

from bertjax.tasks.tagging.tag_form import OUTSIDE_PARTS, Parts, TagForm, form_of

Scheme = Literal["IOB1", "IOB2", "IOE1", "IOE2", "IOBES"]
"""The schemes; BILOU, BMES and BMEWO are IOBES with other letters (`tag_form.SYNONYMS`)."""


class Entity(NamedTuple):
    """Consecutive words that form one entity."""

    type: str
    first: int
    last: int
    """The numbers of its first and last word, from 0."""


class Break(NamedTuple):
    """A place where a sequence of tags breaks the rules of its scheme."""

    word: int
    """Number of the word, from 0."""
    before: str
    """The tag of the word before, or `the beginning`."""
    tag: str
    """The tag that must not follow `before`, or `the end`."""


def parts_by_tag(tags: Iterable[str], form: TagForm | None = None) -> dict[str, Parts]:
    """Return the parts of each different tag, in `form` or by default in the one that they have.

    Raises `ValueError` if they are not all tags of entities.
    """
    different = sorted(set(tags))
    form = form or form_of(different)
    parts_of = {}
    for tag in different:
        parts = form.parts(tag) if form else None
        if parts is None:
            raise ValueError(f"not all of {', '.join(different)} are tags of entities")
        parts_of[tag] = parts
    return parts_of


def scheme_of(sequences: Iterable[Sequence[str]], form: TagForm | None = None) -> Scheme | None:
    """Return the most likely scheme of the tags; None if not all are tags of entities.

    Tags with E (or L) but without B and S are in IOE1 or IOE2. Other tags with E, L, S, U or W are
    in IOBES. Tags without these letters are in IOB1 or IOB2. In IOB1, B is used only between two
    adjacent entities of the same type; in IOE1 the same is true of E (arXiv cs/9907006). The
    entities that do not touch one of the same type decide: it is IOB1 if more of them begin with I
    than with B, and IOE1 if more of them end with I than with E.
    """
    tag_sequences = [tuple(tags) for tags in sequences]
    form = form or form_of(tag for tags in tag_sequences for tag in tags)
    if form is None:
        return None
    parts_of = parts_by_tag((tag for tags in tag_sequences for tag in tags), form)
    sentences = [[parts_of[tag] for tag in tags] for tags in tag_sequences]
    prefixes = {parts.prefix for sentence in sentences for parts in sentence}
    if _is_iobes(prefixes):
        return "IOBES"
    if "E" in prefixes:
        # IOE is IOB read from the end.
        edges = _first_prefixes(sentence[::-1] for sentence in sentences)
        return "IOE1" if edges["I"] > edges["E"] else "IOE2"
    edges = _first_prefixes(sentences)
    return "IOB1" if edges["I"] > edges["B"] else "IOB2"


def prefixes_of_scheme(prefixes: Set[str]) -> str:
    """Return the prefixes that may occur in the scheme of a data set that has `prefixes`."""
    if not prefixes - {"O"} or _is_iobes(prefixes):
        return "OBIES"
    return "OIE" if "E" in prefixes else "OBI"


def _is_iobes(prefixes: Set[str]) -> bool:
    return "S" in prefixes or {"B", "E"} <= prefixes


ENOUGH_ENTITIES = 10
"""So many entities tell IOB1 from IOB2, and IOE1 from IOE2, although a few tags may be wrong."""


def differing_scheme(
    sequences: Sequence[Sequence[str]], scheme: Scheme | None, form: TagForm
) -> Scheme | None:
    """Return the scheme of the tags of a split if it is another one than `scheme`; else None.

    Nothing is told of a split without entities, or if `scheme` is None.
    """
    parts_of = parts_by_tag((tag for tags in sequences for tag in tags), form)
    prefixes = {parts.prefix for parts in parts_of.values()}
    split_scheme = scheme_of(sequences, form)
    if scheme is None or split_scheme in (None, scheme) or prefixes <= {"O"}:
        return None
    # Without two entities that touch, IOE1 has I alone, as IOB1 has.
    if {scheme, split_scheme} == {"IOB1", "IOE1"} and prefixes <= {"O", "I"}:
        return None
    if {scheme, split_scheme} in ({"IOB1", "IOB2"}, {"IOE1", "IOE2"}):
        edges = _first_prefixes([parts_of[tag] for tag in tags] for tags in sequences)
        if edges.total() < ENOUGH_ENTITIES:
            return None
    return split_scheme


def _first_prefixes(sentences: Iterable[Sequence[Parts]]) -> Counter[str]:
    """Count the prefixes of words after O, or after a word of another type."""
    counts = Counter[str]()
    for sentence in sentences:
        before = OUTSIDE_PARTS
        for parts in sentence:
            if parts.prefix != "O" and (before.prefix == "O" or parts.type != before.type):
                counts[parts.prefix] += 1
            before = parts
    return counts


def broken(
    tags: Sequence[str], scheme: Scheme = "IOB2", form: TagForm | None = None
) -> Break | None:
    """Return the first place where the tags of a sentence break the rules of their scheme.

    In IOB2, I must follow a B or I of the same type. In IOE2, an I or E of the same type must
    follow each I. In IOBES, I and E must follow a B or I of the same type, and an I or E must
    follow each B and I. IOB1 and IOE1 have no rules.
    """
    may_follow = _RULES.get(scheme)
    if may_follow is None:
        return None
    parts_of = parts_by_tag(tags, form)
    before = OUTSIDE_PARTS
    for word, parts in enumerate(_with_end(parts_of[tag] for tag in tags)):
        if not may_follow(parts, before):
            previous = tags[word - 1] if word else "the beginning"
            tag = tags[word] if word < len(tags) else "the end"
            # The end is no word, so the last word is named in its place.
            return Break(min(word, len(tags) - 1), previous, tag)
        before = parts
    return None


def _follows_iob2(parts: Parts, before: Parts) -> bool:
    return parts.prefix != "I" or _continues(parts, before)


def _follows_ioe2(parts: Parts, before: Parts) -> bool:
    return before.prefix != "I" or _continues(parts, before)


def _follows_iobes(parts: Parts, before: Parts) -> bool:
    is_open = before.prefix in "BI"
    needs_open = parts.prefix in "IE"
    return _continues(parts, before) if is_open else not needs_open


def _continues(parts: Parts, before: Parts) -> bool:
    """Return whether a word goes on with the entity of the word before."""
    return before.prefix in "BI" and parts.prefix in "IE" and parts.type == before.type


_RULES: dict[str, Callable[[Parts, Parts], bool]] = {
    "IOB2": _follows_iob2,
    "IOE2": _follows_ioe2,
    "IOBES": _follows_iobes,
}
"""By scheme, whether the second tag may stand before the first."""


def default_entities(sentence: Iterable[Parts]) -> list[Entity]:
    """Return the entities of a sentence's tags, in any scheme, in order, broken or not.

    They are those of conlleval and of seqeval's default mode. An entity begins at B and S; it also
    begins at I and E if no entity of the same type is open. An entity ends at E and S, before O,
    and before the next entity begins.
    https://www.clips.uantwerpen.be/conll2000/chunking/conlleval.txt
    """
    ended: list[Entity] = []
    first, before = -1, OUTSIDE_PARTS  # no entity is open: -1
    for word, parts in enumerate(_with_end(sentence)):
        begins = _begins_by_default(parts, before)
        if first >= 0 and (begins or parts.prefix == "O"):
            ended.append(Entity(before.type, first, word - 1))
            first = -1
        if begins:
            first = word
        before = parts
    return ended


def _begins_by_default(parts: Parts, before: Parts) -> bool:
    if parts.prefix in "BS":
        return True
    # These conditions are those of `start_of_chunk` of seqeval, and of startOfChunk of conlleval.
    return parts.prefix in "IE" and (before.prefix in "OES" or parts.type != before.type)


def strict_entities(sentence: Sequence[Parts], scheme: Scheme) -> list[Entity]:
    """Return the entities that the tags give by the rules of the scheme alone, in order.

    An entity whose tags break the rules is not counted: in IOB2 one without B, in IOE2 one without
    E, in IOBES one without S or B and E. They are those of seqeval's mode strict, except in IOE1:
    there seqeval loses entities of one word before another of their type. Here IOE1 is IOB1 read
    from the end.
    """
    if scheme == "IOE1":
        return _strict_from_end(sentence)
    begins, has_ended = _BEGINS[scheme], _HAS_ENDED[scheme]
    ended: list[Entity] = []
    first, before = -1, OUTSIDE_PARTS
    for word, parts in enumerate(_with_end(sentence)):
        if first >= 0 and not _continues(parts, before):
            if has_ended(parts, before):
                ended.append(Entity(before.type, first, word - 1))
            first = -1
        if first < 0 and begins(parts, before):
            first = word
        before = parts
    return ended


def _strict_from_end(sentence: Sequence[Parts]) -> list[Entity]:
    mirrored = []
    for parts in reversed(sentence):
        mirrored.append(parts._replace(prefix="B") if parts.prefix == "E" else parts)
    last_word = len(sentence) - 1
    entities = []
    for entity in reversed(strict_entities(mirrored, "IOB1")):
        entities.append(Entity(entity.type, last_word - entity.last, last_word - entity.first))
    return entities


def _begins_iob1(parts: Parts, before: Parts) -> bool:
    if parts.prefix == "B":
        return before.prefix in "BI" and parts.type == before.type
    return parts.prefix == "I" and (before.prefix in "OB" or parts.type != before.type)


def _begins_ioe2(parts: Parts, before: Parts) -> bool:
    return parts.prefix in "IE" and (before.prefix in "OE" or parts.type != before.type)


_BEGINS: dict[str, Callable[[Parts, Parts], bool]] = {
    "IOB1": _begins_iob1,
    "IOB2": lambda parts, _: parts.prefix == "B",
    "IOE2": _begins_ioe2,
    "IOBES": lambda parts, _: parts.prefix in "BS",
}
"""By scheme, whether the first tag begins an entity if the second one stands before it."""


def _ended_iob1(parts: Parts, before: Parts) -> bool:
    # A B before which there is no entity of its type means nothing in IOB1.
    return not (parts.prefix == before.prefix == "B" and parts.type != before.type)


_HAS_ENDED: dict[str, Callable[[Parts, Parts], bool]] = {
    "IOB1": _ended_iob1,
    "IOB2": lambda *_: True,
    "IOE2": lambda _, before: before.prefix == "E",
    "IOBES": lambda _, before: before.prefix in "ES",
}
"""By scheme, whether an entity may end with the second tag if the first one follows."""


def _with_end(sentence: Iterable[Parts]) -> Iterator[Parts]:
    """Yield the parts of each tag, and then O, which ends an entity that is still open."""
    yield from sentence
    yield OUTSIDE_PARTS
