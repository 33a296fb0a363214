"""Exact match and F1 of answers, in percent, as the official scripts of SQuAD 1.1 (arXiv
1606.05250) and 2.0 (arXiv 1806.03822) have them, to the last digit.

The two differ in three things. An answer without words (an empty one, or one of articles and
punctuation alone) against another without words has F1 1 in 2.0, and 0 in 1.1. In 2.0 right answers
without words are left out, and a question that has no other is answered rightly by an empty text.
And only 2.0 has odds of "no answer", and a threshold for them.

Words are what white space of any kind separates, so a Chinese answer is about one word; punctuation
is ASCII's alone.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalized(text: str) -> str:
    """`text` in lower case, without ASCII punctuation and the articles a, an, the; one space
    between words.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def question_scores(predicted: str, answers: Sequence[str], version_2: bool) -> tuple[int, float]:
    """(exact match, F1) in 0..1 of one predicted answer: each against the right answer that it is
    likest to.

    `answers` must not be empty in version 1.1; in 2.0 none means that there is no answer.
    """
    found, right = normalized(predicted), [normalized(answer) for answer in answers]
    if version_2:
        right = [answer for answer in right if answer] or [""]
    both_empty = int(version_2)
    return max(int(found == answer) for answer in right), max(
        _f1(found, answer, both_empty) for answer in right
    )


def _f1(found: str, right: str, both_empty: int) -> float:
    """F1 of the words of two normalised texts. An int where it is 0 or 1 by rule, for `sum` of
    Python 3.12 adds ints and floats in different ways.
    """
    found_words, right_words = found.split(), right.split()
    if not found_words or not right_words:
        return both_empty if found_words == right_words else 0
    same = sum((Counter(found_words) & Counter(right_words)).values())
    if same == 0:
        return 0
    precision, recall = same / len(found_words), same / len(right_words)
    return (2 * precision * recall) / (precision + recall)


def figures_1(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """`exact_match` and `f1` of the questions of SQuAD 1.1, in percent; each has a right answer or
    more.

    `predicted` and `answers` are of the same questions in the same order, one or more.
    """
    exact_match, f1 = 0, 0.0
    for text, right in zip(predicted, answers, strict=True):
        exact, score = question_scores(text, right, version_2=False)
        exact_match += exact
        f1 += (
            score  # one by one: `sum` is more exact from Python 3.12 on, and the last digit another
        )
    return {"exact_match": 100.0 * exact_match / len(predicted), "f1": 100.0 * f1 / len(predicted)}


def figures_2(
    predicted: Sequence[str],
    answers: Sequence[Sequence[str]],
    null_odds: Sequence[float] | None = None,
) -> dict[str, float]:
    """The figures of SQuAD 2.0, in percent; `answers` of a question that has none are empty.

    `exact_match` and `f1` (the script's `exact` and `f1`) are of all questions, `HasAns_exact`,
    `HasAns_f1` of those with an answer, `NoAns_exact`, `NoAns_f1` of the others, where there are
    such. With `null_odds`, a number for each question that is the greater the less likely an answer
    is: `best_exact`, `best_exact_thresh`, `best_f1`, `best_f1_thresh` by `best_threshold`.
    """
    scored = [
        question_scores(text, right, version_2=True)
        for text, right in zip(predicted, answers, strict=True)
    ]
    exact, f1 = [score for score, _ in scored], [score for _, score in scored]
    figures = {"exact_match": _percent(exact), "f1": _percent(f1)}
    for name, has_answer in (("HasAns", True), ("NoAns", False)):
        chosen = [i for i, right in enumerate(answers) if bool(right) == has_answer]
        if chosen:
            figures[f"{name}_exact"] = _percent([exact[i] for i in chosen])
            figures[f"{name}_f1"] = _percent([f1[i] for i in chosen])
    if null_odds is not None:
        for name, scores in (("exact", exact), ("f1", f1)):
            best = best_threshold(scores, predicted, answers, null_odds)
            figures[f"best_{name}"], figures[f"best_{name}_thresh"] = best
    return figures


def _percent(scores: Sequence[float]) -> float:
    return 100.0 * sum(scores) / len(scores)


def best_threshold(
    scores: Sequence[float],
    predicted: Sequence[str],
    answers: Sequence[Sequence[str]],
    null_odds: Sequence[float],
) -> tuple[float, float]:
    """(best mean score in percent, the threshold that gives it), where questions of greater odds go
    without an answer.

    `scores` are those of `predicted` in 0..1. As the official script has it: the threshold is 0
    where to answer nothing is best, and of questions with equal odds some may be counted as
    answered and others not.
    """
    total: float = sum(1 for right in answers if not right)
    best, threshold = total, 0.0
    for i in sorted(range(len(null_odds)), key=null_odds.__getitem__):
        if answers[i]:
            total += scores[i]
        elif predicted[i]:
            total -= 1
        if total > best:
            best, threshold = total, null_odds[i]
    return 100.0 * best / len(scores), threshold
