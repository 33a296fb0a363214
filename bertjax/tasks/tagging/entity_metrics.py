"""Precision, recall and F1 of entities, as in conlleval and seqeval."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bertjax.tasks.tagging.schemes import (
    Entity,
    Scheme,
    default_entities,
    parts_by_tag,
    strict_entities,
)
from bertjax.tasks.tagging.tag_form import Parts, TagForm


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


def entities(
    tags: Sequence[str], form: TagForm | None = None, strict: Scheme | None = None
) -> list[Entity]:
    """Return the entities of a sentence's tags, in order.

    By default all entities of conlleval and of seqeval's default mode are returned, in any scheme;
    with `strict`, only those that follow the rules of this scheme. Raises `ValueError` if the tags
    are not tags of entities in `form`, by default the form that they have.
    """
    return _entities(tags, parts_by_tag(tags, form), strict)


def _entities(
    tags: Sequence[str], parts_of: Mapping[str, Parts], strict: Scheme | None
) -> list[Entity]:
    sentence = [parts_of[tag] for tag in tags]
    return strict_entities(sentence, strict) if strict else default_entities(sentence)


def entity_scores(
    gold: Iterable[Sequence[str]],
    predicted: Iterable[Sequence[str]],
    form: TagForm | None = None,
    strict: Scheme | None = None,
) -> tuple[Scores, dict[str, Scores]]:
    """Return the scores of the tags of sentences, over all types ("micro") and by type.

    Types are in alphabetical order. The metrics are those of seqeval and of conlleval, which gives
    them in percent; `form` and `strict` are as in `entities`. Raises `ValueError` if the numbers of
    sentences differ.
    """
    pairs = list(zip(gold, predicted, strict=True))
    parts_of = parts_by_tag((tag for pair in pairs for tags in pair for tag in tags), form)
    correct, guessed, true = Counter[str](), Counter[str](), Counter[str]()
    for gold_tags, predicted_tags in pairs:
        right = set(_entities(gold_tags, parts_of, strict))
        guesses = set(_entities(predicted_tags, parts_of, strict))
        true.update(entity.type for entity in right)
        guessed.update(entity.type for entity in guesses)
        correct.update(entity.type for entity in right & guesses)
    by_type = {
        name: Scores(correct[name], guessed[name], true[name]) for name in sorted(true | guessed)
    }
    return Scores(correct.total(), guessed.total(), true.total()), by_type
