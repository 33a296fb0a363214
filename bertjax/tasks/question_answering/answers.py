"""Choice of answers from the logits of starts and ends, as in the original `run_squad.py`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.windows import EncodedQuestions

# It limits the memory of the padded logits and of their pairs.
CHUNK = 256
"""Number of windows whose logits are sorted together."""
# Odds if no text of the paragraph can be the answer. It is finite, because JSON has no infinity.
NO_ANSWER_ODDS = 1e6


class SpanAnswer(NamedTuple):
    """One of a question's most probable answers."""

    text: str
    """A part of the paragraph; empty for "no answer"."""
    probability: float
    """The probability (0 to 1), normalized over the n best answers."""
    start_logit: float
    end_logit: float


class SpanPrediction(NamedTuple):
    """The answer to one question."""

    text: str
    """A part of the paragraph; empty if the prediction is "no answer"."""
    probability: float
    """The probability of `text` (0 to 1), normalized over the n best answers."""
    null_odds: float
    """(score of "no answer") - (score of the best answer), in logits.

    In version 2, "no answer" is predicted if this is above the threshold.
    """
    n_best: tuple[SpanAnswer, ...]
    """The best answers with different texts, best first; version 2 includes "no answer"."""

    @property
    def best_text(self) -> str:
        """The most probable answer with a text; empty if there is no answer with a text."""
        return next((answer.text for answer in self.n_best if answer.text), "")


class _Pairs(NamedTuple):
    """Pairs of a start and an end; the pairs of all windows are joined into one array."""

    score: np.ndarray
    """float64, start logit + end logit."""
    start_logit: np.ndarray
    end_logit: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    """The first and the last piece, numbered as in `EncodedQuestions`."""
    counts: np.ndarray
    """The number of pairs in each window."""


class _Candidate(NamedTuple):
    """A text that may be the answer."""

    text: str
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        """Start logit + end logit."""
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

    `outputs` has the start and end logits of each row, floating-point [ids, 2].

    In each window, the `n_best_size` best starts in the paragraph are paired with the `n_best_size`
    best ends. A pair is valid if its end is not before its start and it has no more than
    `max_answer_length` pieces. A piece can be a start only in the window where it has most context
    (`most_context`). The pairs of all windows are ranked by the sum of their two logits. If several
    pairs have the same text, only the best one is kept.

    The score of "no answer" is the sum of the two logits at [CLS], the minimum over the windows.
    With `version_2`, "no answer" is among the n best, and it is the prediction if its odds are
    above `null_threshold`. The probabilities are the softmax over the scores of the n best.
    """
    pairs = _best_pairs(outputs, encoded, max_answer_length, n_best_size)
    pair_offsets = np.concatenate([[0], np.cumsum(pairs.counts)])
    # The shape is given, as there may be no row. In float64, as run_squad.py adds Python's floats.
    null_logits = np.array([logits[0] for logits in outputs], np.float64).reshape(len(outputs), 2)
    # The rows of a question follow each other: `example` ascends.
    row_bounds = np.searchsorted(encoded.example_indices, np.arange(len(examples) + 1))
    answers = []
    for number, example in enumerate(examples):
        first, last = row_bounds[number], row_bounds[number + 1]
        own_nulls = null_logits[first:last]
        # The least, as in run_squad.py: one window that sees an answer is enough.
        null = own_nulls[np.argmin(own_nulls.sum(axis=1))]
        own_pairs = np.arange(pair_offsets[first], pair_offsets[last])
        candidates = _distinct(example.context, pairs, own_pairs, encoded, n_best_size)
        null_candidate = _Candidate("", *null.tolist())
        answers.append(_chosen(candidates, null_candidate, version_2, null_threshold))
    return answers


def _chosen(
    candidates: list[_Candidate], null: _Candidate, version_2: bool, null_threshold: float
) -> SpanPrediction:
    """Choose the prediction among a question's candidates (best first) and "no answer"."""
    odds = null.score - candidates[0].score if candidates else NO_ANSWER_ODDS
    # At the threshold itself there is an answer, as in run_squad.py.
    is_answered = bool(candidates) and not (version_2 and odds > null_threshold)
    text = candidates[0].text if is_answered else ""
    if version_2 or not candidates:
        # The sort is stable: a text comes before "no answer" with the same score, as in
        # run_squad.py.
        candidates = sorted([*candidates, null], key=lambda candidate: -candidate.score)
    scores = np.array([candidate.score for candidate in candidates])
    # Less the largest, so that exp does not overflow.
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
    """Return the best pairs with different texts of one question, best first."""
    indices = indices[np.argsort(-pairs.score[indices], kind="stable")]
    begins = encoded.begins[pairs.begin[indices]].tolist()
    ends = encoded.ends[pairs.end[indices]].tolist()
    by_text: dict[str, _Candidate] = {}
    for index, begin, end in zip(indices.tolist(), begins, ends, strict=True):
        text = context[begin:end]
        # Pairs come best first, so the first one of a text is its best.
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
    lengths = encoded.window_lengths
    has_most_context = most_context(encoded)
    context_begins = np.concatenate([[0], np.cumsum(lengths)])
    parts = []
    for chunk in np.split(np.arange(len(outputs)), range(CHUNK, len(outputs), CHUNK)):
        width = int(lengths[chunk].max(initial=1))
        starts = np.full((len(chunk), width), -np.inf)
        ends = np.full((len(chunk), width), -np.inf)
        for index, row in enumerate(chunk.tolist()):
            length, begin = lengths[row], encoded.window_begins[row]
            logits = outputs[row][begin : begin + length].astype(np.float64)
            logits = np.nan_to_num(logits, nan=-np.inf)  # a diverged model answers nothing
            counts = has_most_context[context_begins[row] : context_begins[row + 1]]
            # run_squad.py too asks for most context at the start alone.
            starts[index, :length] = np.where(counts, logits[:, 0], -np.inf)
            ends[index, :length] = logits[:, 1]
        first_pieces = encoded.first[chunk]
        parts.append(
            # A window may be shorter than n_best_size, and argpartition would raise.
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

    The logits `starts` and `ends` [W, L] are -inf at positions without a piece. The pairs are
    ordered by window and position.
    """
    begin, end = _best_positions(starts, n_best_size), _best_positions(ends, n_best_size)
    start_logit = np.take_along_axis(starts, begin, axis=1)
    end_logit = np.take_along_axis(ends, end, axis=1)
    length = end[:, None, :] - begin[:, :, None] + 1
    score = start_logit[:, :, None] + end_logit[:, None, :]
    # -inf is a start without most context, or a logit of a diverged model.
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
    # argpartition takes time linear in L. Only the few positions that are kept are sorted.
    return np.sort(np.argpartition(-logits, count - 1, axis=1)[:, :count], axis=1)


def most_context(encoded: EncodedQuestions) -> np.ndarray:
    """Return bool for each piece of each window: true if no other window gives it more context.

    The values of all windows are joined into one array. The context of a piece in a window is
    min(pieces before it, pieces after it) + 0.01 * (length of the window), as in
    `_check_is_max_context` of `run_squad.py`. If several windows give the same context, the result
    is true for the first one only.
    """
    lengths = encoded.window_lengths
    row = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    context = np.minimum(position, lengths[row] - 1 - position) + 0.01 * lengths[row]
    # Each question gets its own numbers of pieces, because two questions may share a paragraph.
    first_rows = np.searchsorted(encoded.example_indices, encoded.example_indices)
    within = encoded.first - encoded.first[first_rows]
    reach = np.zeros(len(lengths) + 1, np.int64)
    np.maximum.at(reach, first_rows, within + lengths)
    base = (np.cumsum(reach) - reach)[first_rows] + within
    piece = base[row] + position
    # Below every context, which is 0 or more.
    best = np.full(int(reach.sum()), -1.0)
    np.maximum.at(best, piece, context)
    owner = np.full(len(best), len(lengths))
    # Equality is exact: `best` holds these very numbers.
    winners = context == best[piece]
    np.minimum.at(owner, piece[winners], row[winners])
    return owner[piece] == row
