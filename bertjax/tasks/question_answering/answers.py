"""From scores of starts and ends to answers, as the original `run_squad.py` chooses them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.windows import EncodedQuestions

CHUNK = 256  # windows whose scores are sorted together
# where the paragraph has no text that could be the answer; a number, for JSON has no infinity
NO_ANSWER_ODDS = 1e6


class SpanAnswer(NamedTuple):
    """One of a question's likeliest answers."""

    text: str
    """Cut from the paragraph; empty: that there is no answer."""
    probability: float
    """Among the n best."""
    start_logit: float
    end_logit: float


class SpanPrediction(NamedTuple):
    """What is answered to one question."""

    text: str
    """Cut from the paragraph; empty where there is no answer."""
    probability: float
    """Of that text among the n best, 0..1."""
    null_odds: float
    """Score of "no answer" less that of the best answer, in logits: above the threshold, no answer
    is given.
    """
    n_best: tuple[SpanAnswer, ...]
    """The best first, no text twice; of version 2 with the empty one among them."""

    @property
    def best_text(self) -> str:
        """The likeliest answer that is not empty; empty if the paragraph has no text at all."""
        return next((answer.text for answer in self.n_best if answer.text), "")


class _Spans(NamedTuple):
    """Candidates, all rows' one after another."""

    score: np.ndarray
    """float64, the sum of the two logits."""
    start_logit: np.ndarray
    end_logit: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    """The first and the last piece, counted as in `SpanRows`."""
    offsets: np.ndarray
    """Where each row's candidates begin, int64 [rows + 1]."""


def predictions(
    outputs: Sequence[np.ndarray],
    rows: EncodedQuestions,
    examples: Sequence[QuestionExample],
    *,
    version_2: bool,
    max_answer_length: int,
    n_best_size: int,
    null_threshold: float,
) -> list[SpanPrediction]:
    """The answer to each question; `outputs` is a float array [ids, 2] of start and end logits for
    each row.

    In each window the `n_best_size` best starts and ends are paired, those in the paragraph's part;
    the end is not before the start and the answer has at most `max_answer_length` pieces. A start
    counts in the window where its piece has most context only (`most_context`). Pairs of all
    windows are compared by the sum of their logits; of those with the same text the best stays. "No
    answer" scores the least of the windows' sums at [CLS]; with `version_2` it is one of the n
    best, whose softmax is the probability, and the answer where its odds are above
    `null_threshold`.
    """
    spans = _candidates(outputs, rows, max_answer_length, n_best_size)
    null = np.array([scores[0] for scores in outputs], np.float64).reshape(len(outputs), 2)
    bounds = np.searchsorted(rows.example, np.arange(len(examples) + 1))
    found = []
    for number, example in enumerate(examples):
        mine = slice(bounds[number], bounds[number + 1])
        worst = null[mine][np.argmin(null[mine].sum(axis=1))]
        kept = list(_distinct(example.context, spans, rows, mine, n_best_size))
        best = kept[0] if kept else None
        odds = float(worst.sum()) - (best[1] + best[2]) if best else NO_ANSWER_ODDS
        if version_2 or best is None:
            kept = sorted(
                [*kept, ("", *worst.tolist())], key=lambda answer: -(answer[1] + answer[2])
            )
        weights = np.exp(
            (logits := np.array([start + end for _, start, end in kept])) - logits.max()
        )
        probabilities = (weights / weights.sum()).tolist()
        n_best = tuple(
            SpanAnswer(text, p, *pair) for (text, *pair), p in zip(kept, probabilities, strict=True)
        )
        text = "" if best is None or (version_2 and odds > null_threshold) else best[0]
        found.append(
            SpanPrediction(
                text, next(a.probability for a in n_best if a.text == text), odds, n_best
            )
        )
    return found


def _distinct(
    context: str, spans: _Spans, rows: EncodedQuestions, mine: slice, most: int
) -> Iterator[tuple[str, float, float]]:
    """(text, start logit, end logit) of the best candidates of some rows of one question, no text
    twice.
    """
    here = np.arange(spans.offsets[mine.start], spans.offsets[mine.stop])
    here = here[np.argsort(-spans.score[here], kind="stable")]
    begins, ends = rows.begins[spans.begin[here]].tolist(), rows.ends[spans.end[here]].tolist()
    seen: set[str] = {""}
    for place, begin, end in zip(here.tolist(), begins, ends, strict=True):
        text = context[begin:end]
        if text not in seen:
            seen.add(text)
            yield text, float(spans.start_logit[place]), float(spans.end_logit[place])
            if len(seen) > most:
                return


def _candidates(
    outputs: Sequence[np.ndarray], rows: EncodedQuestions, longest: int, most: int
) -> _Spans:
    """The valid pairs of each row's best starts and ends."""
    lengths = np.diff(rows.offsets) - rows.second - 1  # of the windows, in pieces
    counted = most_context(rows)
    counted_begins = np.concatenate([[0], np.cumsum(lengths)])
    parts, sizes = [], []
    for chunk in np.split(np.arange(len(outputs)), range(CHUNK, len(outputs), CHUNK)):
        width = int(lengths[chunk].max(initial=1))
        starts, ends = (np.full((len(chunk), width), -np.inf) for _ in range(2))
        for place, row in enumerate(chunk.tolist()):
            size, second = lengths[row], rows.second[row]
            scores = np.nan_to_num(
                outputs[row][second : second + size].astype(np.float64), nan=-np.inf
            )
            own = counted[counted_begins[row] : counted_begins[row + 1]]
            starts[place, :size] = np.where(own, scores[:, 0], -np.inf)
            ends[place, :size] = scores[:, 1]
        parts.append(_best_pairs(starts, ends, rows.first[chunk], longest, min(most, width)))
        sizes.append(parts[-1][-1])
    score, start, end, begin, last, _ = (
        np.concatenate(columns) for columns in zip(*parts, strict=True)
    )
    return _Spans(
        score, start, end, begin, last, np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    )


def _best_pairs(
    starts: np.ndarray, ends: np.ndarray, first: np.ndarray, longest: int, most: int
) -> tuple[np.ndarray, ...]:
    """(score, start, end, first piece, last piece) of all windows' pairs, and how many each window
    has.

    `starts` and `ends` [W, L] have -inf where there is none; ties go to the earlier.
    """
    begin, end = (
        np.sort(np.argpartition(-scores, most - 1, axis=1)[:, :most], axis=1)
        for scores in (starts, ends)
    )
    start_logit, end_logit = (
        np.take_along_axis(s, at, axis=1) for s, at in ((starts, begin), (ends, end))
    )
    length = end[:, None, :] - begin[:, :, None] + 1
    score = start_logit[:, :, None] + end_logit[:, None, :]
    window, i, j = np.nonzero((length >= 1) & (length <= longest) & (score > -np.inf))
    count = np.bincount(window, minlength=len(starts))
    pieces = first[window] + begin[window, i], first[window] + end[window, j]
    return score[window, i, j], start_logit[window, i], end_logit[window, j], *pieces, count


def most_context(rows: EncodedQuestions) -> np.ndarray:
    """Whether each piece of each window has its most context there; bool, all windows one after
    another.

    The context is the lesser of the numbers of pieces before and after it in the window, and a
    hundredth of the window's length (so `run_squad.py`); of equal windows it is the first.
    """
    lengths = np.diff(rows.offsets) - rows.second - 1
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    context = np.minimum(place, lengths[row] - 1 - place) + 0.01 * lengths[row]
    # Each question's pieces counted through: two questions may have the same paragraph.
    leads = np.searchsorted(rows.example, rows.example)  # the first row of the same question
    within = rows.first - rows.first[leads]
    reach = np.zeros(len(lengths) + 1, np.int64)
    np.maximum.at(reach, leads, within + lengths)
    base = (np.cumsum(reach) - reach)[leads] + within
    piece = base[row] + place
    best = np.full(int(reach.sum()), -1.0)
    np.maximum.at(best, piece, context)
    owner = np.full(len(best), len(lengths))
    winners = context == best[piece]
    np.minimum.at(owner, piece[winners], row[winners])
    return owner[piece] == row
