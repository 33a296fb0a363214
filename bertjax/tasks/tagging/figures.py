"""Figures of a split by name: of entities, or of words where the tags are no tags of entities."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from bertjax.tasks.class_scores import AVERAGED, MEASURES, ClassCounts
from bertjax.tasks.metric_table import Metric
from bertjax.tasks.tagging.entity_metrics import Scores
from bertjax.tasks.tagging.labels import Tags

OF_ENTITIES = tuple(Metric(name) for name in MEASURES)
"""The metrics over the entities of all types, which seqeval calls micro averages."""
ACCURACY = Metric("accuracy")
OF_TAGS = (
    ACCURACY,
    # Without the micro averages: over entities these are OF_ENTITIES, over words the accuracy.
    *(Metric(name) for name, (_, kind) in AVERAGED.items() if kind != "micro"),
    *(Metric(name, of_class=True) for name in MEASURES),
)
"""What `finetune.metric` may name for both; the classes are types of entities, or tags."""


def accuracy(gold: Sequence[Tags], predicted: Sequence[Tags]) -> float:
    """Return the share of the words with the right tag; 0 without words."""
    words = right = 0
    for true_tags, guessed_tags in zip(gold, predicted, strict=True):
        words += len(true_tags)
        right += sum(a == b for a, b in zip(true_tags, guessed_tags, strict=True))
    return right / max(words, 1)


def type_counts(by_type: Mapping[str, Scores]) -> tuple[list[str], ClassCounts]:
    """Return the types of entities, and their counts in the same order."""
    values = by_type.values()
    counts = ClassCounts(
        np.array([scores.correct for scores in values], np.int64),
        np.array([scores.predicted for scores in values], np.int64),
        np.array([scores.gold for scores in values], np.int64),
    )
    return list(by_type), counts


def tag_counts(gold: Sequence[Tags], predicted: Sequence[Tags]) -> tuple[list[str], ClassCounts]:
    """Return the tags that are gold or predicted, and the counts of their words."""
    hits, guessed, true = Counter[str](), Counter[str](), Counter[str]()
    for true_tags, guessed_tags in zip(gold, predicted, strict=True):
        true.update(true_tags)
        guessed.update(guessed_tags)
        hits.update(a for a, b in zip(true_tags, guessed_tags, strict=True) if a == b)
    return type_counts(
        {tag: Scores(hits[tag], guessed[tag], true[tag]) for tag in sorted(true | guessed)}
    )
