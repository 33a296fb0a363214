"""The figures of SQuAD: by hand, and what the official scripts said of the same predictions."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.question_answering.squad_metrics import (
    best_threshold,
    figures_1,
    figures_2,
    question_scores,
)

pytestmark = pytest.mark.quick

WORDS = ["a", "the", "cat", "dog", "ran", "far", "away", "1895", "x,", "y"]
ANSWERS = st.one_of(
    st.lists(st.sampled_from([*WORDS, "", "-", "\u00a0", "\u3000", "黑豹", "İ"]), max_size=5).map(
        " ".join
    ),
    st.text(max_size=8),
)

PLAIN = st.lists(st.sampled_from(["cat", "dog", "ran"]), min_size=1, max_size=3).map(" ".join)


@pytest.mark.parametrize("predicted,answers,first,second", [
    ("the cat", ["cat"], (1, 1.0), (1, 1.0)),
    ("cat dog", ["dog", "a b c dog"], (0, 2 / 3), (0, 2 / 3)),
    ("dog dog", ["dog cat dog dog"], (0, 2 / (1 + 4 / 2)), (0, 2 / (1 + 4 / 2))),
    # right in 1.1 but of F1 0; in 2.0 the article alone is no answer
    ("", ["the"], (1, 0), (1, 1)),
    ("x", ["the", "x"], (1, 1.0), (1, 1.0)),
    ("", ["the", "x"], (1, 0), (0, 0)),
    ("-", ["x"], (0, 0), (0, 0)),
])  # fmt: skip
def test_an_answer_scores_as_the_rightest_of_several_and_the_versions_differ_on_empty_ones(
    predicted, answers, first, second
):
    assert question_scores(predicted, answers, version_2=False) == pytest.approx(first, abs=1e-15)
    assert question_scores(predicted, answers, version_2=True) == pytest.approx(second, abs=1e-15)


def test_only_an_empty_answer_is_right_where_there_is_none():
    assert question_scores("", [], version_2=True) == (1, 1)
    assert question_scores("x", [], version_2=True) == (0, 0)
    assert question_scores("the", [], version_2=True) == (1, 1)


def drawn(number):
    rng = random.Random(0)
    predicted = [" ".join(rng.choices(WORDS, k=rng.randint(0, 6))) for _ in range(number)]
    answers = [
        [" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 3))]
        for _ in predicted
    ]
    some = [right if rng.random() < 0.6 else [] for right in answers]
    return predicted, answers, some, [rng.gauss(0, 3) + (0 if right else 2) for right in some]


def test_figures_are_those_that_the_official_scripts_printed_for_the_same_3000_answers():
    predicted, answers, some, odds = drawn(3000)
    assert figures_1(predicted, answers) == FIRST
    # `sum` adds floats in another way from Python 3.12 on, in the official script too.
    assert figures_2(predicted, some, odds) == pytest.approx(SECOND, rel=1e-14)


FIRST = {"exact_match": 2.1666666666666665, "f1": 28.257032227032145}
SECOND = {
    "exact_match": 7.666666666666667,
    "f1": 24.619992784992732,
    "HasAns_exact": 1.1950027159152634,
    "HasAns_f1": 28.82128101845637,
    "NoAns_exact": 17.946505608283,
    "NoAns_f1": 17.946505608283,
    "best_exact": 38.63333333333333,
    "best_exact_thresh": 0.0,
    "best_f1": 40.557830687830844,
    "best_f1_thresh": -1.3569007529234605,
}


def test_the_best_threshold_answers_what_is_likelier_right_than_not():
    # Sorted by odds: right, wrong, right, no answer there; then one more without an answer, and
    # left empty.
    predicted, answers = ["a b", "c", "d", "e", ""], [["a b"], ["x"], ["d"], [], []]
    scores = [
        question_scores(text, right, True)[0]
        for text, right in zip(predicted, answers, strict=True)
    ]
    assert best_threshold(scores, predicted, answers, [-2.0, -1.0, 0.5, 1.0, 2.0]) == (80.0, 0.5)
    assert best_threshold(scores, predicted, answers, [-2.0, -1.0, 1.5, 1.0, 2.0]) == (60.0, -2.0)
    assert best_threshold([0, 0], ["x", "y"], [[], []], [-1.0, 1.0]) == (100.0, 0.0)


@given(
    st.lists(
        st.tuples(PLAIN, st.lists(PLAIN, max_size=2), st.floats(-9, 9)), min_size=1, max_size=9
    )
)
def test_version_2_scores_a_set_as_its_parts_and_no_threshold_beats_the_best(questions):
    predicted, answers, odds = (list(column) for column in zip(*questions, strict=True))
    figures = figures_2(predicted, answers, odds)
    parts = [("HasAns", sum(map(bool, answers))), ("NoAns", sum(not right for right in answers))]
    for name, whole in (("exact", "exact_match"), ("f1", "f1")):
        mean = sum(figures[f"{part}_{name}"] * size for part, size in parts if size) / len(answers)
        assert figures[whole] == pytest.approx(mean)
        for cut in {*odds, min(odds) - 1}:
            left = [text if o <= cut else "" for text, o in zip(predicted, odds, strict=True)]
            assert figures_2(left, answers)[whole] <= figures[f"best_{name}"] + 1e-9


@given(
    st.lists(
        st.tuples(ANSWERS, st.lists(ANSWERS, max_size=3), st.floats(-9, 9)), min_size=1, max_size=9
    )
)
def test_version_2_agrees_with_transformers_to_the_last_digit(questions):
    theirs = pytest.importorskip(
        "transformers.data.metrics.squad_metrics", reason="not in transformers 5"
    )
    predicted, answers, odds = (list(column) for column in zip(*questions, strict=True))

    class Example:
        def __init__(self, number):
            self.qas_id, self.answers = number, [{"text": text} for text in answers[number]]

    examples = [Example(number) for number in range(len(answers))]
    result = theirs.squad_evaluate(
        examples, dict(enumerate(predicted)), dict(enumerate(odds)), 1e30
    )
    result = {
        "exact_match" if key == "exact" else key: value
        for key, value in result.items()
        if "total" not in key
    }
    assert figures_2(predicted, answers, odds) == result
