"""Exact match and F1 of answers, to the last digit as SQuAD's official scripts give them.

They are in percent. The scripts are those of SQuAD 1.1 (arXiv 1606.05250) and 2.0 (arXiv
1806.03822), and differ in three things. An answer without words (an empty one, or one of articles
and punctuation alone) against another without words has F1 1 in 2.0, and 0 in 1.1. In 2.0 right
answers without words are left out, and for a question that has no other an empty text is right. And
only 2.0 has odds of "no answer", and a threshold for them.

Words are separated by white space of any kind, so a Chinese answer is about one word. Punctuation
is ASCII's alone.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalized(text: str) -> str:
    """Return `text` in lower case, without ASCII punctuation and the articles a, an, the.

    There is one space between words.
    """
    # Punctuation goes first, as in the official scripts: `the-end` becomes `theend`, which has no
    # article.
    without_punctuation = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", without_punctuation).split())


def question_scores(predicted: str, answers: Sequence[str], version_2: bool) -> tuple[int, float]:
    """Return (exact match, F1), in 0..1, of one predicted answer.

    Each is that against the right answer with the best score. `answers` must not be empty in
    version 1.1; in 2.0 none means that there is no answer.
    """
    text = normalized(predicted)
    right = [normalized(answer) for answer in answers]
    if version_2:
        right = [answer for answer in right if answer] or [""]
    both_empty = int(version_2)
    exact_match = max(int(text == answer) for answer in right)
    return exact_match, max(_f1(text, answer, both_empty) for answer in right)


def _f1(predicted: str, right: str, both_empty: int) -> float:
    """Return the F1 of the words of two normalized texts.

    It is an int where it is 0 or 1 by rule: the `sum` of Python 3.12 adds ints and floats in
    different ways, and the last digit depends on it.
    """
    predicted_words, right_words = predicted.split(), right.split()
    if not predicted_words or not right_words:
        return both_empty if predicted_words == right_words else 0
    same = sum((Counter(predicted_words) & Counter(right_words)).values())
    if same == 0:
        return 0
    precision, recall = same / len(predicted_words), same / len(right_words)
    # Operations in the order of the official scripts: the last digit depends on it.
    return (2 * precision * recall) / (precision + recall)


def figures_1(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return `exact_match` and `f1` of SQuAD 1.1, in percent.

    `predicted` and `answers` are of the same questions in the same order, at least one, each with
    at least one right answer.
    """
    exact_match, f1 = 0, 0.0
    for text, right in zip(predicted, answers, strict=True):
        exact, score = question_scores(text, right, version_2=False)
        exact_match += exact
        # One by one: from Python 3.12 on `sum` is more exact, and the last digit another.
        f1 += score
    return {"exact_match": 100.0 * exact_match / len(predicted), "f1": 100.0 * f1 / len(predicted)}


def figures_2(
    predicted: Sequence[str],
    answers: Sequence[Sequence[str]],
    null_odds: Sequence[float] | None = None,
) -> dict[str, float]:
    """Return the figures of SQuAD 2.0, in percent; `answers` of a question may be empty.

    `exact_match` and `f1` (the script's `exact` and `f1`) are of all questions, `HasAns_exact`,
    `HasAns_f1` of those with an answer, `NoAns_exact`, `NoAns_f1` of the others, if there are such.
    With `null_odds`, a number for each question that is the higher the less likely an answer is,
    there are `best_exact`, `best_exact_thresh`, `best_f1`, `best_f1_thresh` by `best_threshold`.
    """
    exact, f1 = [], []
    for text, right in zip(predicted, answers, strict=True):
        question_exact, question_f1 = question_scores(text, right, version_2=True)
        exact.append(question_exact)
        f1.append(question_f1)
    figures = {"exact_match": _percent(exact), "f1": _percent(f1)}
    for name, has_answer in (("HasAns", True), ("NoAns", False)):
        chosen = [i for i, right in enumerate(answers) if bool(right) == has_answer]
        if chosen:
            figures[f"{name}_exact"] = _percent([exact[i] for i in chosen])
            figures[f"{name}_f1"] = _percent([f1[i] for i in chosen])
    if null_odds is not None:
        by_name: dict[str, Sequence[float]] = {"exact": exact, "f1": f1}
        for name, scores in by_name.items():
            best, threshold = best_threshold(scores, predicted, answers, null_odds)
            figures[f"best_{name}"] = best
            figures[f"best_{name}_thresh"] = threshold
    return figures


def _percent(scores: Sequence[float]) -> float:
    # By `sum`, as the script of 2.0 does it, and not as in 1.1: the last digit depends on it.
    return 100.0 * sum(scores) / len(scores)


def best_threshold(
    scores: Sequence[float],
    predicted: Sequence[str],
    answers: Sequence[Sequence[str]],
    null_odds: Sequence[float],
) -> tuple[float, float]:
    """Return (best mean score in percent, its threshold); above it questions are not answered.

    `scores` are those of `predicted` in 0..1. As in the official script, the threshold is 0 if it
    is best to answer nothing, and of questions with equal odds some may be counted as answered and
    others not.
    """
    # From the state where nothing is answered, each question in turn is answered after all.
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
