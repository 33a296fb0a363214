"""Entities in tag sequences, and their precision, recall and F1 as in conlleval and seqeval."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

Scheme = Literal["IOB1", "IOB2", "IOBES"]

TAG = re.compile(r"O|[BIESLUMW](-.*)?", re.DOTALL)
# The names of the last, the only and the inner word of an entity in BILOU, BMES and BMEWO.
SYNONYMS = str.maketrans("LUMW", "ESIS")


class Entity(NamedTuple):
    """Consecutive words that form one entity."""

    type: str
    first: int
    last: int
    """The numbers of its first and last word, from 0."""


class Scores(NamedTuple):
    """Counts of entities, and the metrics that they give, in 0..1.

    A metric that would divide by 0 is 0.
    """

    correct: int = 0
    """Number of predicted entities with the right type, first word and last word."""
    predicted: int = 0
    gold: int = 0

    @property
    def precision(self) -> float:
        """The share of the predicted entities that are correct."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """The share of the gold entities that were found."""
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        precision, recall = self.precision, self.recall
        return 2 * precision * recall / (precision + recall) if self.correct else 0.0


class Break(NamedTuple):
    """A place where a sequence of tags breaks the rules of its scheme."""

    word: int
    """Number of the word, from 0."""
    before: str
    """The tag of the word before, or `the beginning`."""
    tag: str
    """The tag that must not follow `before`, or `the end`."""


class _Parts(NamedTuple):
    """The two parts of a tag."""

    prefix: str
    """O: outside of entities. B, I, E, S: the first, an inner, the last, the only word of one."""
    type: str
    """The type of the entity; `_` for a tag without a type, such as B, as in seqeval."""


OUTSIDE = _Parts("O", "")


def is_entity_tags(tags: Iterable[str]) -> bool:
    """Return whether all tags are tags of entities: O, B-TYPE or B, for example."""
    return all(TAG.fullmatch(tag) for tag in tags)


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of a sentence's tags, in any scheme, in order.

    They are those of conlleval and of seqeval's default mode. An entity begins at B and S; it also
    begins at I and E if no entity of the same type is open. An entity ends at E and S, before O,
    and before the next entity begins.
    https://www.clips.uantwerpen.be/conll2000/chunking/conlleval.txt
    """
    ended: list[Entity] = []
    first, before = -1, OUTSIDE  # no entity is open: -1
    for word, parts in enumerate(_with_end(tags)):
        begins = _begins_entity(parts, before)
        if first >= 0 and (begins or parts.prefix == "O"):
            ended.append(Entity(before.type, first, word - 1))
            first = -1
        if begins:
            first = word
        before = parts
    return ended


def _begins_entity(parts: _Parts, before: _Parts) -> bool:
    if parts.prefix in "BS":
        return True
    # These conditions are those of `start_of_chunk` of seqeval, and of startOfChunk of conlleval.
    return parts.prefix in "IE" and (before.prefix in "OES" or parts.type != before.type)


def entity_scores(
    gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]
) -> tuple[Scores, dict[str, Scores]]:
    """Return the scores of the tags of sentences, over all types ("micro") and by type.

    Types are in alphabetical order. The metrics are those of seqeval's default mode and of
    conlleval, which gives them in percent. Raises `ValueError` if the numbers of sentences differ.
    """
    correct, guessed, true = Counter[str](), Counter[str](), Counter[str]()
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        right, guesses = set(entities(gold_tags)), set(entities(predicted_tags))
        true.update(entity.type for entity in right)
        guessed.update(entity.type for entity in guesses)
        correct.update(entity.type for entity in right & guesses)
    by_type = {
        name: Scores(correct[name], guessed[name], true[name]) for name in sorted(true | guessed)
    }
    return Scores(correct.total(), guessed.total(), true.total()), by_type


def scheme_of(sequences: Iterable[Sequence[str]]) -> Scheme | None:
    """Return the most likely scheme of the tags; None if not all are tags of entities.

    It is IOBES if there are prefixes for the last or the only word of an entity (E and S, or L and
    U). Otherwise it is IOB1 or IOB2; in IOB1, B is used only between two adjacent entities of the
    same type (arXiv cs/9907006). The entities that do not follow one of the same type decide: it is
    IOB1 if more of them begin with I than with B.
    """
    beginnings = Counter[str]()
    for tags in sequences:
        if not is_entity_tags(tags):
            return None
        before = OUTSIDE
        for parts in map(_parts, tags):
            if parts.prefix in "ES":
                beginnings["ES"] += 1
            elif parts.prefix != "O" and (before.prefix == "O" or parts.type != before.type):
                beginnings[parts.prefix] += 1
            before = parts
    if beginnings["ES"]:
        return "IOBES"
    return "IOB1" if beginnings["I"] > beginnings["B"] else "IOB2"


def broken(tags: Sequence[str], scheme: Scheme = "IOB2") -> Break | None:
    """Return the first place where the tags of a sentence break the rules of their scheme.

    In IOB2, I must follow a B or I of the same type. In IOBES, I and E must follow a B or I of the
    same type, and an I or E must follow each B and I. IOB1 has no rules.
    """
    if scheme == "IOB1":
        return None
    before = OUTSIDE
    for word, parts in enumerate(_with_end(tags)):
        if not _may_follow(parts, before, scheme):
            previous = tags[word - 1] if word else "the beginning"
            tag = tags[word] if word < len(tags) else "the end"
            # The end is no word, so the last word is named in its place.
            return Break(min(word, len(tags) - 1), previous, tag)
        before = parts
    return None


def _may_follow(parts: _Parts, before: _Parts, scheme: Scheme) -> bool:
    is_open = before.prefix in "BI"
    if parts.prefix in "IE":
        return is_open and parts.type == before.type
    # In IOBES an entity must be closed by E; in IOB2 it can end anywhere.
    return scheme == "IOB2" or not is_open


def _with_end(tags: Iterable[str]) -> Iterator[_Parts]:
    """Yield the parts of each tag, and then O, which ends an entity that is still open."""
    yield from map(_parts, tags)
    yield OUTSIDE


def _parts(tag: str) -> _Parts:
    # Cut at the first hyphen, as seqeval does: a type may have hyphens of its own.
    return _Parts(tag[0].translate(SYNONYMS), tag[1:].split("-", 1)[-1] or "_")
