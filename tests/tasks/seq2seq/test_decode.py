"""The search beside plain ones."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from bertjax.tasks.seq2seq import decode
from tests.tasks.seq2seq.cases import (
    CLS,
    PAD,
    SEEDS,
    SEP,
    TINY,
    beam_search,
    encoded,
    greedy,
    search_of,
    targets_of,
    teacher,
)


def log_probabilities(config, head, memory, mask, row, search, prefixes):
    """log P [n, V] of the id after each prefix, all of one length, by whole targets and plain
    numpy.
    """
    padded = np.full((128, search.max_target_length), PAD, np.int32)  # one shape, one program
    padded[: len(prefixes), : len(prefixes[0])] = prefixes
    rows = (
        jnp.repeat(memory[row : row + 1], 128, axis=0),
        np.repeat(mask[row : row + 1], 128, axis=0),
    )
    scores = np.asarray(teacher(config, head, *rows, padded), np.float64)[
        : len(prefixes), len(prefixes[0]) - 1
    ]
    scores -= scores.max(-1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(-1, keepdims=True))
    scores[:, [CLS, PAD, *range(search.vocab_size, config.vocab_size)]] = -np.inf
    return scores


def plain_beam_search(search, following):
    """As `decode.beam_search` says, with lists; `following(prefixes)` is log P [n, V]."""
    opened, ended, count = [(0.0, [CLS])], [], 0
    for length in range(1, search.max_target_length):
        table = following([ids for _, ids in opened])
        every = [
            (total + p, [*ids, i])
            for (total, ids), row in zip(opened, table, strict=True)
            for i, p in enumerate(row)
            if p > -np.inf
        ]
        every.sort(key=lambda candidate: -candidate[0])
        done = [
            (total / ((5 + length) / 6) ** search.length_penalty, ids)
            for total, ids in every[: search.beam_size]
            if ids[-1] == SEP
        ]
        ended, count = ended + done, count + len(done)
        opened = [(total, ids) for total, ids in every if ids[-1] != SEP][: search.beam_size]
        if count >= search.beam_size:
            break
    return max(ended)[1] if ended else opened[0][1]


def filled(ids, length):
    return [*ids, *[PAD] * (length - len(ids))]


@settings(max_examples=10)
@given(SEEDS)
def test_beam_search_finds_what_a_plain_one_does(seed):
    search = search_of(TINY, length=6, beam_size=3)
    head, memory, mask = encoded(TINY, seed)
    result = np.asarray(beam_search(TINY, head, memory, mask, search))
    for row in range(4):
        following = functools.partial(log_probabilities, TINY, head, memory, mask, row, search)
        assert result[row].tolist() == filled(plain_beam_search(search, following), 6)


@pytest.mark.slow
@settings(max_examples=5)
@given(SEEDS)
def test_a_beam_as_wide_as_the_search_finds_the_best_of_all_targets(seed):
    search = search_of(TINY, length=4, beam_size=80, alpha=1.0)  # 16 open targets, 5 ids each
    head, memory, mask = encoded(TINY, seed)
    result = np.asarray(beam_search(TINY, head, memory, mask, search))
    for row in range(4):
        best = {}
        totals = {(CLS,): 0.0}
        for length in (1, 2, 3):
            table = log_probabilities(TINY, head, memory, mask, row, search, list(totals))
            every = {
                (*ids, i): total + p[i]
                for (ids, total), p in zip(totals.items(), table, strict=True)
                for i in (1, 3, 4, 5, 6)
            }
            best |= {
                ids: total / ((5 + length) / 6) for ids, total in every.items() if ids[-1] == SEP
            }
            totals = {ids: total for ids, total in every.items() if ids[-1] != SEP}
        assert len(best) == 1 + 4 + 16
        assert result[row].tolist() == filled(max(best, key=best.get), 4)


@given(SEEDS)
def test_one_beam_is_greedy_search_exactly(seed):
    arguments = (TINY, *encoded(TINY, seed), search_of(TINY, length=6))
    result = np.asarray(greedy(*arguments))
    np.testing.assert_array_equal(beam_search(*arguments), result)
    for row in result:
        ends = np.flatnonzero(row == SEP)
        assert (row[ends[0] + 1 :] == PAD).all() if len(ends) else (row != PAD).all()
        assert row[0] == CLS
        assert not np.isin(row[1:], [CLS, 7]).any()


def test_what_does_not_end_is_cut_and_loses_to_what_ends():
    head, memory, mask = encoded(TINY, 0)
    bias = jnp.zeros(8)
    never = {**head, "mlm": {**head["mlm"], "bias": bias.at[SEP].set(-60.0).at[4].set(90.0)}}
    for beams in (1, 3):
        result = targets_of(TINY, never, memory, mask, search_of(TINY, length=6, beam_size=beams))
        assert np.asarray(result).tolist() == [[CLS, 4, 4, 4, 4, 4]] * 4
    always = {**head, "mlm": {**head["mlm"], "bias": bias.at[SEP].set(90.0)}}
    result = targets_of(TINY, always, memory, mask, search_of(TINY, length=6, beam_size=3))
    assert np.asarray(result).tolist() == [[CLS, SEP, PAD, PAD, PAD, PAD]] * 4


def test_the_score_is_that_of_gnmt():
    assert float(decode.score(jnp.float32(-6.0), 1, 0.7)) == pytest.approx(-6.0)
    assert float(decode.score(jnp.float32(-6.0), 7, 1.0)) == pytest.approx(-3.0)
    assert float(decode.score(jnp.float32(-6.0), 19, 0.5)) == pytest.approx(-3.0)
