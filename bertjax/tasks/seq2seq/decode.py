"""Search for the most probable target of each source, greedily or by beam search.

The search runs under `jit`, so all arrays have the length of the longest target. `layers.py`
explains the names of axes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.functional import Params
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.tasks.seq2seq import decoder
from bertjax.tasks.seq2seq.decoder import EncodedSource
from bertjax.tasks.seq2seq.layers import KeysValues


@dataclass(frozen=True)
class Search:
    """Settings of the search for targets."""

    cls_id: int
    """The id at the beginning of a target; it never occurs inside a target."""
    sep_id: int
    """The id that ends a target."""
    pad_id: int
    """The id of the padding after a target; it never occurs inside a target."""
    vocab_size: int
    """Size of the tokenizer's vocabulary; the model may have more ids, which are not used."""
    max_target_length: int
    """T, the maximum number of ids in a target, including `cls_id` and `sep_id`."""
    beam_size: int = 4
    """R, the number of unfinished targets that are kept; 1 is greedy search."""
    length_penalty: float = 0.6
    """Alpha of `score`: 0 ranks targets by their probability, higher values prefer longer ones."""


def score(total: Array, length: Array | int, alpha: float) -> Array:
    """Return the score that ranks finished targets, log P / ((5 + |Y|) / 6) ** alpha.

    This is equation 14 of arXiv 1609.08144 without the coverage penalty. `total` is log P in nats.
    `length` is |Y|, the number of ids after `cls_id`, including `sep_id`.
    """
    return total / ((5.0 + length) / 6.0) ** alpha


def generate(
    config: ModelConfig,
    head: Params,
    memory_BxLxD: Array,
    source_mask: Array,
    search: Search,
    *,
    layout: Layout = ANYWHERE,
) -> Array:
    """Return int32 [B, T]: `cls_id`, the target, `sep_id`, `pad_id`s.

    There is no `sep_id` if the target did not end within T ids. `memory` is the encoder's output;
    `source_mask` [B, L] is 1 at ids that are not padding. With one beam the search is `greedy`,
    whose result equals that of `beam_search` with one beam.
    """
    search_targets = greedy if search.beam_size == 1 else beam_search
    return search_targets(config, head, memory_BxLxD, source_mask, search, layout=layout)


class _Greedy(NamedTuple):
    """The state of a greedy search."""

    position: Array
    """The position of the last id, int32 scalar."""
    ids_BxT: Array
    ended_B: Array
    cache: KeysValues


def greedy(
    config: ModelConfig,
    head: Params,
    memory_BxLxD: Array,
    source_mask: Array,
    search: Search,
    *,
    layout: Layout = ANYWHERE,
) -> Array:
    """Return the targets of a greedy search: each id is the most probable after those before it.

    If ids are equally probable, the lowest is chosen. The result is that of `generate`.
    """
    rows, length = source_mask.shape[0], search.max_target_length
    source, cache = decoder.start(
        config, head, memory_BxLxD, source_mask, beams=1, length=length, layout=layout
    )
    ids_BxT = jnp.full((rows, length), search.pad_id, jnp.int32).at[:, 0].set(search.cls_id)

    def unfinished(state: _Greedy) -> Array:
        return (state.position < length - 1) & ~jnp.all(state.ended_B)

    def advance(state: _Greedy) -> _Greedy:
        last_Bx1 = jax.lax.dynamic_slice_in_dim(state.ids_BxT, state.position, 1, axis=1)
        log_probs_Bx1xV, cache = _log_probabilities(
            config, head, search, source, state.cache, last_Bx1, state.position, layout
        )
        best_B = jnp.argmax(log_probs_Bx1xV[:, 0], axis=-1).astype(jnp.int32)
        next_B = jnp.where(state.ended_B, search.pad_id, best_B)
        return _Greedy(
            state.position + 1,
            _put(state.ids_BxT, next_B, state.position + 1),
            state.ended_B | (next_B == search.sep_id),
            cache,
        )

    first = _Greedy(jnp.int32(0), ids_BxT, jnp.zeros(rows, bool), cache)
    # A loop with a condition: a batch is done when its longest target is.
    return jax.lax.while_loop(unfinished, advance, first).ids_BxT


class _Beams(NamedTuple):
    """The state of a beam search."""

    position: Array
    """The position of the last id of the open targets, int32 scalar."""
    open_BxRxT: Array
    """The targets that have not ended, the most probable first."""
    totals_BxR: Array
    """log P of the open targets; -inf for a missing one."""
    ended_BxRxT: Array
    """The targets that have ended, the best first."""
    scores_BxR: Array
    """Scores of the ended targets; -inf for a missing one."""
    number_B: Array
    """The number of targets that have ended."""
    cache: KeysValues


def beam_search(
    config: ModelConfig,
    head: Params,
    memory_BxLxD: Array,
    source_mask: Array,
    search: Search,
    *,
    layout: Layout = ANYWHERE,
) -> Array:
    """Return the targets of a beam search, in the form of `generate`.

    At each position, each open target of a row is continued with every id; the results are the
    candidates. Those of the R most probable candidates that end are kept with their `score`. The R
    most probable candidates that do not end stay open. A row is finished when R targets have ended,
    or after T ids. The result for a row is the ended target with the best score. If none has ended,
    it is the most probable open target.
    """
    rows, beams, length = source_mask.shape[0], search.beam_size, search.max_target_length
    source, cache = decoder.start(
        config, head, memory_BxLxD, source_mask, beams=beams, length=length, layout=layout
    )
    blank = jnp.full((rows, beams, length), search.pad_id, jnp.int32).at[:, :, 0].set(search.cls_id)
    none = jnp.full((rows, beams), -jnp.inf)
    # The search begins with one beam: with R equal beams each candidate would occur R times.
    one_beam = none.at[:, 0].set(0.0)
    first = _Beams(jnp.int32(0), blank, one_beam, blank, none, jnp.zeros(rows, jnp.int32), cache)

    def unfinished(state: _Beams) -> Array:
        return (state.position < length - 1) & ~jnp.all(state.number_B >= beams)

    def advance(state: _Beams) -> _Beams:
        last_BxR = jax.lax.dynamic_index_in_dim(
            state.open_BxRxT, state.position, axis=2, keepdims=False
        )
        log_probs_BxRxV, cache = _log_probabilities(
            config, head, search, source, state.cache, last_BxR, state.position, layout
        )
        totals_BxRxV = state.totals_BxR[:, :, None] + log_probs_BxRxV
        return _pruned(search, state, totals_BxRxV, cache, layout)

    state = jax.lax.while_loop(unfinished, advance, first)
    any_ended_Bx1 = (state.scores_BxR[:, 0] > -jnp.inf)[:, None]
    return jnp.where(any_ended_Bx1, state.ended_BxRxT[:, 0], state.open_BxRxT[:, 0])


def _pruned(
    search: Search, state: _Beams, totals_BxRxV: Array, cache: KeysValues, layout: Layout
) -> _Beams:
    """Return the beams after the next position; `totals` are the candidates' log P."""
    rows, beams, vocabulary = totals_BxRxV.shape
    position = state.position + 1
    # Only one candidate of each beam ends, so R or more of the best 2 R candidates do not end.
    totals, flat = jax.lax.top_k(totals_BxRxV.reshape(rows, beams * vocabulary), 2 * beams)
    parents, ids = flat // vocabulary, (flat % vocabulary).astype(jnp.int32)
    continued = jnp.take_along_axis(state.open_BxRxT, parents[:, :, None], axis=1)
    targets = _put(continued, ids, position)

    ends = ids == search.sep_id
    # As in BeamSearchScorer of transformers: an end below the R best does not count.
    in_beam = jnp.arange(2 * beams)[None, :] < beams
    # A row that is done goes on in the batch until all are; its ended targets must stay.
    running = (state.number_B < beams)[:, None]
    # -inf is no candidate: at the first position there may be fewer than 2 R.
    kept = ends & in_beam & running & (totals > -jnp.inf)
    scores = jnp.where(kept, score(totals, position, search.length_penalty), -jnp.inf)
    scores_BxR, best = jax.lax.top_k(jnp.concatenate([state.scores_BxR, scores], axis=1), beams)
    old_and_new = jnp.concatenate([state.ended_BxRxT, targets], axis=1)
    ended = jnp.take_along_axis(old_and_new, best[:, :, None], axis=1)

    totals_BxR, most_probable = jax.lax.top_k(jnp.where(ends, -jnp.inf, totals), beams)
    opened = jnp.take_along_axis(targets, most_probable[:, :, None], axis=1)
    # Open targets changed their places, and the cache has to follow them.
    parents = jnp.take_along_axis(parents, most_probable, axis=1)[None, :, :, None, None, None]
    cache = KeysValues(*(jnp.take_along_axis(part, parents, axis=2) for part in cache))
    number_B = state.number_B + jnp.sum(kept, axis=1, dtype=jnp.int32)
    cache = decoder.laid_out(cache, layout)
    return _Beams(position, opened, totals_BxR, ended, scores_BxR, number_B, cache)


def _log_probabilities(
    config: ModelConfig,
    head: Params,
    search: Search,
    source: EncodedSource,
    cache: KeysValues,
    ids_BxR: Array,
    position: Array,
    layout: Layout,
) -> tuple[Array, KeysValues]:
    """Return log P of the next id [B, R, V], -inf for ids that must not follow, and the cache."""
    logits, cache = decoder.step(config, head, source, cache, ids_BxR, position, layout=layout)
    id_V = jnp.arange(logits.shape[-1])
    banned_V = (id_V == search.cls_id) | (id_V == search.pad_id) | (id_V >= search.vocab_size)
    # Before ids are banned: log P stays that of the model.
    log_probs_BxRxV = jax.nn.log_softmax(logits, axis=-1)
    return jnp.where(banned_V[None, None, :], -jnp.inf, log_probs_BxRxV), cache


def _put(targets: Array, ids: Array, position: Array) -> Array:
    """Return `targets` [..., T] with `ids` [...] at `position`."""
    return jax.lax.dynamic_update_slice_in_dim(
        targets, ids[..., None], position, axis=targets.ndim - 1
    )
