"""Figures over words, against scikit-learn's; those of entities are in test_entity_metrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.class_scores import class_figure
from bertjax.tasks.tagging.figures import accuracy, tag_counts

TAGS = ("ADJ", "DET", "NOUN", "VERB")
pairs = st.lists(
    st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
)


@given(pairs)
def test_figures_of_tags_are_scikit_learns_over_words(sentences):
    metrics = pytest.importorskip("sklearn.metrics")
    gold = [tuple(tag for tag, _ in words) for words in sentences]
    predicted = [tuple(tag for _, tag in words) for words in sentences]
    true, guessed = sum(gold, ()), sum(predicted, ())
    counted = tag_counts(gold, predicted)
    assert accuracy(gold, predicted) == pytest.approx(metrics.accuracy_score(true, guessed))
    for average in ("macro", "weighted"):
        theirs = metrics.precision_recall_fscore_support(
            true, guessed, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), theirs, strict=False):
            assert class_figure(f"{name}_{average}", *counted) == pytest.approx(value)
    for tag in TAGS:
        theirs = metrics.f1_score(true, guessed, labels=[tag], average=None, zero_division=0)
        assert class_figure(f"f1:{tag}", *counted) == pytest.approx(theirs[0])
