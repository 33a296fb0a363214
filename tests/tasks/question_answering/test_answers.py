"""Answers chosen from scores: against plain loops over all starts and ends."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.answers import NO_ANSWER_ODDS, most_context, predictions
from bertjax.tasks.question_answering.windows import encode_questions
from tests.data.test_row_layout import LAYOUTS, with_layout
from tests.tasks.question_answering.test_windows import WORDPIECE, windows

LETTERS = list("abcdefghij")


def make_rows(contexts, max_seq_length, doc_stride, layout=WORDPIECE.layout):
    tokenizer = with_layout(WORDPIECE, layout)
    examples = [
        QuestionExample(str(i), "a"[: i % 2], " ".join(words), ())
        for i, words in enumerate(contexts)
    ]
    rows = encode_questions(
        examples,
        tokenizer,
        max_seq_length=max_seq_length,
        doc_stride=doc_stride,
        max_query_length=4,
        targets=False,
        name="s",
    )
    return examples, rows


def context_owner(spans, piece):
    """The window of a piece with most context, as `run_squad.py` finds it: one by one."""
    best, owner = -1.0, -1
    for number, (begin, length) in enumerate(spans):
        if begin <= piece < begin + length:
            score = min(piece - begin, begin + length - 1 - piece) + 0.01 * length
            if score > best:
                best, owner = score, number
    return owner


def every_answer(example, rows, outputs, mine, longest):
    """(score, text) of all valid pairs of all windows of one question."""
    words = example.context.split()
    spans = [
        (
            int(rows.first[row] - rows.first[mine[0]]),
            int(rows.window_lengths[row]),
        )
        for row in mine
    ]
    for number, (row, (begin, length)) in enumerate(zip(mine, spans, strict=True)):
        second = int(rows.window_begins[row])
        for start, end in itertools.product(range(length), repeat=2):
            if start <= end < start + longest and context_owner(spans, begin + start) == number:
                score = float(outputs[row][second + start, 0]) + float(
                    outputs[row][second + end, 1]
                )
                yield score, " ".join(words[begin + start : begin + end + 1])


CONTEXTS = st.lists(
    st.lists(st.sampled_from(LETTERS), min_size=1, max_size=14), min_size=1, max_size=4
)


@given(CONTEXTS, st.integers(6, 14), st.integers(1, 9))
def test_a_piece_counts_in_the_window_where_it_has_most_context(
    contexts, max_seq_length, doc_stride
):
    # Twice: two questions of one paragraph do not share windows.
    examples, rows = make_rows([*contexts, *contexts], max_seq_length, doc_stride)
    counted, at = most_context(rows), 0
    for number, example in enumerate(examples):
        pieces = len(example.context.split())
        spans = windows(pieces, max_seq_length - 3 - number % 2, doc_stride)
        for window, (begin, length) in enumerate(spans):
            expected = [
                context_owner(spans, piece) == window for piece in range(begin, begin + length)
            ]
            assert counted[at : at + length].tolist() == expected
            at += length
    assert at == len(counted)


def test_a_longer_window_outweighs_a_piece_of_context():
    spans = windows(310, 250, 200)  # of 250 pieces and of 110
    counted = most_context(make_rows([LETTERS * 31], 253, 200)[1])
    assert counted[:250].tolist() == [context_owner(spans, piece) == 0 for piece in range(250)]
    assert 225 <= counted[:250].sum() < 250


@given(
    CONTEXTS,
    st.integers(6, 14),
    st.integers(1, 9),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.sampled_from(list(LAYOUTS.values())),
)
def test_answers_are_the_best_of_all_pairs_when_all_are_kept(
    contexts, max_seq_length, doc_stride, longest, version_2, seed, layout
):
    max_seq_length += layout.pair_specials - 3
    examples, rows = make_rows(contexts, max_seq_length, doc_stride, layout)
    rng = np.random.default_rng(seed)
    outputs = [rng.standard_normal((size, 2)).astype(np.float32) for size in np.diff(rows.offsets)]
    result = predictions(
        outputs,
        rows,
        examples,
        version_2=version_2,
        max_answer_length=longest,
        n_best_size=400,
        null_threshold=0.5,
    )
    for number, (example, prediction) in enumerate(zip(examples, result, strict=True)):
        mine = np.flatnonzero(rows.example_indices == number)
        best = {}
        for score, text in every_answer(example, rows, outputs, mine, longest):
            best[text] = max(score, best.get(text, -math.inf))
        null = min(float(outputs[row][0].astype(np.float64).sum()) for row in mine)
        odds = null - max(best.values())
        text = max(best, key=best.__getitem__)
        assert prediction.best_text == text
        assert prediction.text == ("" if version_2 and odds > 0.5 else text)
        assert prediction.null_odds == pytest.approx(odds)
        if version_2:
            best[""] = null
        total = sum(map(math.exp, best.values()))
        ranked = sorted(best.items(), key=lambda pair: -pair[1])
        assert [answer.text for answer in prediction.n_best] == [text for text, _ in ranked]
        for answer, (_, score) in zip(prediction.n_best, ranked, strict=True):
            assert answer.start_logit + answer.end_logit == pytest.approx(score)
            assert answer.probability == pytest.approx(math.exp(score) / total)
        assert prediction.probability == pytest.approx(math.exp(best[prediction.text]) / total)


def test_only_the_n_best_starts_and_ends_are_paired_and_the_question_is_no_answer():
    examples, rows = make_rows([LETTERS[:5], LETTERS[:5]], 16, 8)
    scores = np.full((9, 2), 50.0, np.float32)  # [CLS] a [SEP] a b c d e [SEP]
    scores[3:8, 0] = [0, 5, 4, 0, 1]
    scores[3:8, 1] = [9, 6, 0, 7, 2]
    (_, prediction) = predictions(
        [np.delete(scores, 1, axis=0), scores],
        rows,
        examples,
        version_2=False,
        max_answer_length=3,
        n_best_size=2,
        null_threshold=0.0,
    )
    assert [answer.text for answer in prediction.n_best] == [
        "b c d",
        "c d",
    ]  # "a" ends best, after no start
    assert (prediction.n_best[0].start_logit, prediction.n_best[0].end_logit) == (5, 7)
    assert prediction.null_odds == 100 - 12


def test_a_paragraph_without_pieces_has_no_answer():
    (example,), rows = make_rows([["\u200b"]], 8, 8)
    (result,) = predictions(
        [np.zeros((3, 2), np.float32)],
        rows,
        [example],
        version_2=False,
        max_answer_length=3,
        n_best_size=2,
        null_threshold=0.0,
    )
    assert (result.text, result.best_text, result.null_odds, len(result.n_best)) == (
        "",
        "",
        NO_ANSWER_ODDS,
        1,
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_of_a_model_that_diverged_are_decoded_without_a_crash(value):
    examples, rows = make_rows([LETTERS, LETTERS[:3]], 10, 4)
    outputs = [np.full((size, 2), value, np.float32) for size in np.diff(rows.offsets)]
    for version_2 in (False, True):
        with np.errstate(invalid="ignore", over="ignore"):
            result = predictions(
                outputs,
                rows,
                examples,
                version_2=version_2,
                max_answer_length=3,
                n_best_size=2,
                null_threshold=0.0,
            )
        assert len(result) == 2
