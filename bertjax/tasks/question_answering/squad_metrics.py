"""Exact match and F1 of answers, equal to the last digit to SQuAD's official scripts.

The figures are in percent. The scripts of SQuAD 1.1 (arXiv 1606.05250) and 2.0 (arXiv 1806.03822)
differ in three points. An answer has no words if it is empty or has only articles and punctuation.

- If neither the predicted nor the right answer has words, the F1 is 1 in 2.0 and 0 in 1.1.
- In 2.0, right answers without words are left out. If a question has no other right answer, an
  empty text is right.
- Only 2.0 has odds of "no answer", and a threshold for them.

What the words of an answer are, is another matter: an `AnswerRule` says it, one for each question.
Without rules it is SQuAD's own.
"""

from collections.abc import Sequence

from bertjax.tasks.question_answering.answer_rules import SQUAD, AnswerRule


def question_scores(
    predicted: str, answers: Sequence[str], version_2: bool, rule: AnswerRule = SQUAD
) -> tuple[int, float]:
    """Return (exact match, F1), in 0..1, of one predicted answer.

    Both are the maximum over the right answers. In version 1.1 `answers` must not be empty; in 2.0
    empty `answers` mean that the question has no answer.
    """
    text = rule.normalized(predicted)
    right = [rule.normalized(answer) for answer in answers]
    if version_2:
        right = [answer for answer in right if answer.strip()] or [""]
    both_empty = int(version_2)
    exact_match = max(int(text == answer) for answer in right)
    words = rule.words(text)
    return exact_match, max(_f1(words, rule.words(answer), both_empty, rule) for answer in right)


def _f1(
    predicted_words: list[str], right_words: list[str], both_empty: int, rule: AnswerRule
) -> float:
    """Return the F1 of two answers, given their words.

    The result is an int in the special cases 0 and 1, because Python 3.12's `sum` adds ints and
    floats in different ways, which can change the last digit.
    """
    if not predicted_words or not right_words:
        return both_empty if predicted_words == right_words else 0
    same = rule.common(predicted_words, right_words)
    if same == 0:
        return 0
    precision, recall = same / len(predicted_words), same / len(right_words)
    # Operations in the order of the official scripts: the last digit depends on it.
    return (2 * precision * recall) / (precision + recall)


def figures_1(
    predicted: Sequence[str],
    answers: Sequence[Sequence[str]],
    rules: Sequence[AnswerRule] | None = None,
) -> dict[str, float]:
    """Return `exact_match` and `f1` of SQuAD 1.1, in percent.

    `predicted`, `answers` and `rules` are for the same questions in the same order. There must be
    one question or more, and each must have one right answer or more.
    """
    exact_match, f1 = 0, 0.0
    for text, right, rule in zip(predicted, answers, _each(rules, predicted), strict=True):
        exact, score = question_scores(text, right, version_2=False, rule=rule)
        exact_match += exact
        # Added one by one: `sum` is more exact since Python 3.12, which can change the last digit.
        f1 += score
    return {"exact_match": 100.0 * exact_match / len(predicted), "f1": 100.0 * f1 / len(predicted)}


def figures_2(
    predicted: Sequence[str],
    answers: Sequence[Sequence[str]],
    null_odds: Sequence[float] | None = None,
    rules: Sequence[AnswerRule] | None = None,
) -> dict[str, float]:
    """Return the figures of SQuAD 2.0, in percent; `answers` of a question may be empty.

    `exact_match` and `f1` (`exact` and `f1` in the script) are over all questions. `HasAns_exact`
    and `HasAns_f1` are over the questions with an answer, `NoAns_exact` and `NoAns_f1` over those
    without, if there are any. `null_odds` has a number for each question; higher means that "no
    answer" is more likely. If it is given, the result also has `best_exact`, `best_exact_thresh`,
    `best_f1` and `best_f1_thresh` from `best_threshold`.
    """
    exact, f1 = [], []
    for text, right, rule in zip(predicted, answers, _each(rules, predicted), strict=True):
        question_exact, question_f1 = question_scores(text, right, version_2=True, rule=rule)
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


def _each(rules: Sequence[AnswerRule] | None, predicted: Sequence[str]) -> Sequence[AnswerRule]:
    return [SQUAD] * len(predicted) if rules is None else rules


def _percent(scores: Sequence[float]) -> float:
    # By `sum`, as the script of 2.0 does it, and not as in 1.1: the last digit depends on it.
    return 100.0 * sum(scores) / len(scores)


def best_threshold(
    scores: Sequence[float],
    predicted: Sequence[str],
    answers: Sequence[Sequence[str]],
    null_odds: Sequence[float],
) -> tuple[float, float]:
    """Return (best mean score in percent, threshold that gives it).

    A question whose odds are above the threshold gets "no answer". `scores` has the score (0 to 1)
    of each of `predicted`. As in the official script, the threshold is 0 if "no answer" to all
    questions is best, and questions with equal odds may be treated differently.
    """
    # The search begins with "no answer" to all questions, and then answers one more at a time.
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
