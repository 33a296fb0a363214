"""Answers from the logits of starts and ends, chosen as the original `run_squad.py` does."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.windows import EncodedQuestions

CHUNK = 256
"""Windows whose logits are sorted together."""
# For a paragraph without any text that could be the answer. A number, as JSON has no infinity.
NO_ANSWER_ODDS = 1e6


class SpanAnswer(NamedTuple):
    """One of a question's most probable answers."""

    text: str
    """Cut from the paragraph; empty: there is no answer."""
    probability: float
    """The probability among the n best, in 0..1."""
    start_logit: float
    end_logit: float


class SpanPrediction(NamedTuple):
    """The answer to one question."""

    text: str
    """Cut from the paragraph; empty if there is no answer."""
    probability: float
    """The probability of that text among the n best, in 0..1."""
    null_odds: float
    """Score of "no answer" less that of the best answer, in logits.

    Above the threshold no answer is given.
    """
    n_best: tuple[SpanAnswer, ...]
    """The best first, no text twice; for version 2 with the empty one among them."""

    @property
    def best_text(self) -> str:
        """The most probable answer that is not empty; empty if the paragraph has no text at all."""
        return next((answer.text for answer in self.n_best if answer.text), "")


class _Pairs(NamedTuple):
    """Pairs of a start and an end, of all windows one after another."""

    score: np.ndarray
    """float64, the sum of the two logits."""
    start_logit: np.ndarray
    end_logit: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    """The first and the last piece, counted as in `EncodedQuestions`."""
    counts: np.ndarray
    """The number of pairs of each window."""


class _Candidate(NamedTuple):
    """A text that may be the answer."""

    text: str
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        """The sum of the two logits."""
        return self.start_logit + self.end_logit


def predictions(
    outputs: Sequence[np.ndarray],
    encoded: EncodedQuestions,
    examples: Sequence[QuestionExample],
    *,
    version_2: bool,
    max_answer_length: int,
    n_best_size: int,
    null_threshold: float,
) -> list[SpanPrediction]:
    """Return the answer to each question.

    `outputs` has the start and end logits of each row, floating-point [ids, 2]. In each window the
    `n_best_size` best starts and ends within the paragraph are paired; the end is not before the
    start, and the answer has at most `max_answer_length` pieces. A start counts in the window where
    its piece has most context only (`most_context`). Pairs of all windows are compared by the sum
    of their logits; of those with the same text the best stays. "No answer" scores the least of the
    windows' sums at [CLS]. With `version_2` it is one of the n best, whose softmax is the
    probability, and it is the answer if its odds are above `null_threshold`.
    """
    pairs = _best_pairs(outputs, encoded, max_answer_length, n_best_size)
    pair_offsets = np.concatenate([[0], np.cumsum(pairs.counts)])
    null_logits = np.array([logits[0] for logits in outputs], np.float64).reshape(len(outputs), 2)
    row_bounds = np.searchsorted(encoded.example_indices, np.arange(len(examples) + 1))
    answers = []
    for number, example in enumerate(examples):
        first, last = row_bounds[number], row_bounds[number + 1]
        own_nulls = null_logits[first:last]
        null = own_nulls[np.argmin(own_nulls.sum(axis=1))]
        own_pairs = np.arange(pair_offsets[first], pair_offsets[last])
        candidates = _distinct(example.context, pairs, own_pairs, encoded, n_best_size)
        null_candidate = _Candidate("", *null.tolist())
        answers.append(_chosen(candidates, null_candidate, version_2, null_threshold))
    return answers


def _chosen(
    candidates: list[_Candidate], null: _Candidate, version_2: bool, null_threshold: float
) -> SpanPrediction:
    """Return the prediction from a question's candidates, the best first, and "no answer"."""
    odds = null.score - candidates[0].score if candidates else NO_ANSWER_ODDS
    is_answered = bool(candidates) and not (version_2 and odds > null_threshold)
    text = candidates[0].text if is_answered else ""
    if version_2 or not candidates:
        # Stable: of equal scores the text comes before "no answer", as in run_squad.py.
        candidates = sorted([*candidates, null], key=lambda candidate: -candidate.score)
    scores = np.array([candidate.score for candidate in candidates])
    weights = np.exp(scores - scores.max())
    probabilities = (weights / weights.sum()).tolist()
    n_best = tuple(
        SpanAnswer(candidate.text, probability, candidate.start_logit, candidate.end_logit)
        for candidate, probability in zip(candidates, probabilities, strict=True)
    )
    probability = next(answer.probability for answer in n_best if answer.text == text)
    return SpanPrediction(text, probability, odds, n_best)


def _distinct(
    context: str, pairs: _Pairs, indices: np.ndarray, encoded: EncodedQuestions, n_best_size: int
) -> list[_Candidate]:
    """Return the best of some pairs of one question, the best first, no text twice."""
    indices = indices[np.argsort(-pairs.score[indices], kind="stable")]
    begins = encoded.begins[pairs.begin[indices]].tolist()
    ends = encoded.ends[pairs.end[indices]].tolist()
    by_text: dict[str, _Candidate] = {}
    for index, begin, end in zip(indices.tolist(), begins, ends, strict=True):
        text = context[begin:end]
        if text and text not in by_text:
            start_logit, end_logit = pairs.start_logit[index], pairs.end_logit[index]
            by_text[text] = _Candidate(text, float(start_logit), float(end_logit))
            if len(by_text) == n_best_size:
                break
    return list(by_text.values())


def _best_pairs(
    outputs: Sequence[np.ndarray],
    encoded: EncodedQuestions,
    max_answer_length: int,
    n_best_size: int,
) -> _Pairs:
    """Return the valid pairs of each row's best starts and ends."""
    lengths = _window_lengths(encoded)
    has_most_context = most_context(encoded)
    context_begins = np.concatenate([[0], np.cumsum(lengths)])
    parts = []
    for chunk in np.split(np.arange(len(outputs)), range(CHUNK, len(outputs), CHUNK)):
        width = int(lengths[chunk].max(initial=1))
        starts = np.full((len(chunk), width), -np.inf)
        ends = np.full((len(chunk), width), -np.inf)
        for index, row in enumerate(chunk.tolist()):
            length, second = lengths[row], encoded.second_begins[row]
            logits = outputs[row][second : second + length].astype(np.float64)
            logits = np.nan_to_num(logits, nan=-np.inf)  # a diverged model answers nothing
            counts = has_most_context[context_begins[row] : context_begins[row + 1]]
            starts[index, :length] = np.where(counts, logits[:, 0], -np.inf)
            ends[index, :length] = logits[:, 1]
        first_pieces = encoded.first[chunk]
        parts.append(
            _paired(starts, ends, first_pieces, max_answer_length, min(n_best_size, width))
        )
    return _Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _paired(
    starts: np.ndarray,
    ends: np.ndarray,
    first_pieces: np.ndarray,
    max_answer_length: int,
    n_best_size: int,
) -> _Pairs:
    """Return the valid pairs of some windows' best starts and ends.

    The logits `starts` and `ends` [W, L] are -inf where there is none; ties go to the earlier.
    """
    begin, end = _best_positions(starts, n_best_size), _best_positions(ends, n_best_size)
    start_logit = np.take_along_axis(starts, begin, axis=1)
    end_logit = np.take_along_axis(ends, end, axis=1)
    length = end[:, None, :] - begin[:, :, None] + 1
    score = start_logit[:, :, None] + end_logit[:, None, :]
    is_valid = (length >= 1) & (length <= max_answer_length) & (score > -np.inf)
    window, i, j = np.nonzero(is_valid)
    return _Pairs(
        score[window, i, j],
        start_logit[window, i],
        end_logit[window, j],
        first_pieces[window] + begin[window, i],
        first_pieces[window] + end[window, j],
        np.bincount(window, minlength=len(starts)),
    )


def _best_positions(logits: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of each window's `count` largest logits, ascending, [W, count]."""
    # argpartition is linear in L, a sort is not; only the few that are kept are sorted.
    return np.sort(np.argpartition(-logits, count - 1, axis=1)[:, :count], axis=1)


def _window_lengths(encoded: EncodedQuestions) -> np.ndarray:
    """Return the pieces of each row's window: what lies between its segment 1 and its [SEP]."""
    return np.diff(encoded.offsets) - encoded.second_begins - 1


def most_context(encoded: EncodedQuestions) -> np.ndarray:
    """Return whether each piece of each window has its most context there.

    The result is bool, all windows one after another. The context is the lesser of the numbers of
    pieces before and after it in the window, plus a hundredth of the window's length (as in
    `_check_is_max_context` of `run_squad.py`); of equal windows the first has it.
    """
    lengths = _window_lengths(encoded)
    row = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    context = np.minimum(position, lengths[row] - 1 - position) + 0.01 * lengths[row]
    # Pieces are counted through for each question, as two questions may have the same paragraph.
    # The first row of each row's question.
    first_rows = np.searchsorted(encoded.example_indices, encoded.example_indices)
    within = encoded.first - encoded.first[first_rows]
    reach = np.zeros(len(lengths) + 1, np.int64)
    np.maximum.at(reach, first_rows, within + lengths)
    base = (np.cumsum(reach) - reach)[first_rows] + within
    piece = base[row] + position
    best = np.full(int(reach.sum()), -1.0)
    np.maximum.at(best, piece, context)
    owner = np.full(len(best), len(lengths))
    winners = context == best[piece]
    np.minimum.at(owner, piece[winners], row[winners])
    return owner[piece] == row
