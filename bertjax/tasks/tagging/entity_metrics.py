"""Entities of tag sequences, and precision, recall and F1 over them as conlleval and seqeval count."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

Scheme = Literal["IOB1", "IOB2", "IOBES"]

TAG = re.compile(r"O|[BIESLUMW](-.*)?", re.DOTALL)
# What other schemes call the last, the only and the inner word of an entity: BILOU, BMES, BMEWO.
SAME = str.maketrans("LUMW", "ESIS")


class Entity(NamedTuple):
    """A stretch of words of one type."""

    type: str
    first: int
    last: int
    """The numbers of its first and last word, from 0."""


class Scores(NamedTuple):
    """Counts of entities, and the figures that they give, in 0..1; 0 where there is nothing to
    divide by.
    """

    correct: int = 0
    """Predicted with the right type, first and last word."""
    predicted: int = 0
    gold: int = 0

    @property
    def precision(self) -> float:
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        precision, recall = self.precision, self.recall
        return 2 * precision * recall / (precision + recall) if self.correct else 0.0


class Break(NamedTuple):
    """Where a sequence of tags breaks the rules of its scheme."""

    word: int
    """From 0."""
    before: str
    """The tag before, or `the beginning`."""
    tag: str
    """The tag that must not follow it, or `the end`."""


def is_entity_tags(tags: Iterable[str]) -> bool:
    """Whether all of these are tags of entities: O, and B-TYPE and the like, or B alone."""
    return all(TAG.fullmatch(tag) for tag in tags)


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence's tags, of any scheme, in order, as in conlleval and in seqeval's
    default mode.

    An entity begins at B and S, at I and E where none of the same type is open, and ends before the
    next begins, at E and S, and before O.
    https://www.clips.uantwerpen.be/conll2000/chunking/conlleval.txt
    """
    found: list[Entity] = []
    first, before, before_type = -1, "O", ""  # no entity is open: -1
    for word, (place, type_) in enumerate([*map(_parts, tags), ("O", "")]):
        begins = place in "BS" or (place in "IE" and (before in "OES" or type_ != before_type))
        if first >= 0 and (begins or place == "O"):
            found.append(Entity(before_type, first, word - 1))
            first = -1
        if begins:
            first = word
        before, before_type = place, type_
    return found


def entity_scores(
    gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]
) -> tuple[Scores, dict[str, Scores]]:
    """(over all types: "micro", by type) of the tags of sentences; types in alphabetical order.

    The figures are those of seqeval's default mode and of conlleval, which gives them in percent.
    Raises `ValueError` where the numbers of sentences differ.
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
    """How tags mark entities, judged by most of them; None where not all are tags of entities.

    IOBES where the last or the only word of an entity has its own mark (also called E and S, or L
    and U). Else IOB1 where more entities that follow none of their type begin with I than with B;
    else IOB2. IOB1 has B only between two entities of one type (arXiv cs/9907006).
    """
    starts = Counter[str]()
    for tags in sequences:
        if not is_entity_tags(tags):
            return None
        before = ("O", "")
        for place, type_ in map(_parts, tags):
            if place in "ES":
                starts["ES"] += 1
            elif place != "O" and (before[0] == "O" or type_ != before[1]):
                starts[place] += 1
            before = (place, type_)
    if starts["ES"]:
        return "IOBES"
    return "IOB1" if starts["I"] > starts["B"] else "IOB2"


def broken(tags: Sequence[str], scheme: Scheme = "IOB2") -> Break | None:
    """The first place where the tags of a sentence break the rules of their scheme.

    IOB2: I follows B or I of its type. IOBES: I and E do, and after B and I the entity goes on.
    IOB1 takes any.
    """
    if scheme == "IOB1":
        return None
    before, before_type = "O", ""
    for word, (place, type_) in enumerate([*map(_parts, tags), ("O", "")]):
        is_open = before in "BI"
        goes_on = place in "IE"
        fits = is_open and type_ == before_type if goes_on else scheme == "IOB2" or not is_open
        if not fits:
            shown = [*tags, "the end"]
            return Break(
                min(word, len(tags) - 1), shown[word - 1] if word else "the beginning", shown[word]
            )
        before, before_type = place, type_
    return None


def _parts(tag: str) -> tuple[str, str]:
    """(O, B, I, E or S; the type, or `_` as seqeval calls that of a bare B)."""
    return tag[0].translate(SAME), tag[1:].split("-", 1)[-1] or "_"
