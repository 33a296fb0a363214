"""The likeliest target of each source, by greedy or beam search, under `jit`: every shape is known
beforehand.

Axes are those of `layers.py`; V' counts the candidates of all beams of a row.
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
    """How targets are searched for."""

    cls_id: int
    """Begins a target; never within one."""
    sep_id: int
    """Ends a target."""
    pad_id: int
    """Fills the row after it; never within one."""
    vocab_size: int
    """Ids from here on are no tokens, where the model's vocabulary is rounded up."""
    max_target_length: int
    """T: ids of the longest target, `cls_id` and `sep_id` included."""
    beam_size: int = 4
    """R; 1 is greedy search."""
    length_penalty: float = 0.6
    """Alpha of `score`; 0 ranks targets by their probability, higher values make them longer."""


def score(total: Array, length: Array | int, alpha: float) -> Array:
    """What ended targets are ranked by: log P / ((5 + |Y|) / 6) ** alpha (arXiv 1609.08144,
    equation 14, no coverage).

    `total` is log P in nats, `length` |Y| the ids after the first, `sep_id` included.
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
    """[B, T] int32: `cls_id`, the target, `sep_id`, `pad_id`s; without `sep_id` where it did not
    end within T ids.

    `memory` is the encoder's output, `source_mask` [B, L] 1 at its real ids. Greedy for one beam,
    which is what `beam_search` of one beam finds too.
    """
    find = greedy if search.beam_size == 1 else beam_search
    return find(config, head, memory_BxLxD, source_mask, search, layout=layout)


def greedy(
    config: ModelConfig,
    head: Params,
    memory_BxLxD: Array,
    source_mask: Array,
    search: Search,
    *,
    layout: Layout = ANYWHERE,
) -> Array:
    """`generate` where each id is the likeliest after those before it; of equals, the lowest."""
    rows, length = source_mask.shape[0], search.max_target_length
    source, cache = decoder.start(
        config, head, memory_BxLxD, source_mask, beams=1, length=length, layout=layout
    )
    ids_BxT = jnp.full((rows, length), search.pad_id, jnp.int32).at[:, 0].set(search.cls_id)

    def unfinished(state: tuple[Array, Array, Array, KeysValues]) -> Array:
        place, _, ended_B, _ = state
        return (place < length - 1) & ~jnp.all(ended_B)

    def advance(
        state: tuple[Array, Array, Array, KeysValues],
    ) -> tuple[Array, Array, Array, KeysValues]:
        place, ids_BxT, ended_B, cache = state
        last_Bx1 = jax.lax.dynamic_slice_in_dim(ids_BxT, place, 1, axis=1)
        found, cache = _log_probabilities(
            config, head, search, source, cache, last_Bx1, place, layout
        )
        next_B = jnp.where(
            ended_B, search.pad_id, jnp.argmax(found[:, 0], axis=-1).astype(jnp.int32)
        )
        return (
            place + 1,
            _put(ids_BxT, next_B, place + 1),
            ended_B | (next_B == search.sep_id),
            cache,
        )

    return jax.lax.while_loop(
        unfinished, advance, (jnp.int32(0), ids_BxT, jnp.zeros(rows, bool), cache)
    )[1]


class _Beams(NamedTuple):
    place: Array
    """Of the last id of the open targets, int32 scalar."""
    open_BxRxT: Array
    """Targets that have not ended, the likeliest first."""
    totals_BxR: Array
    """Their log P; -inf where there is none."""
    ended_BxRxT: Array
    """Targets that have ended, the best first."""
    scores_BxR: Array
    """Their scores; -inf where there is none."""
    number_B: Array
    """Targets that have ended."""
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
    """`generate` by beam search.

    At each place all open targets of a row go on with every id. Of the likeliest R of these
    candidates, those that end are kept with their `score`; the likeliest R that do not end stay
    open. A row is done when R targets have ended, or after T ids. Its answer is the ended target of
    the best score; the likeliest open one only where none has ended.
    """
    rows, beams, length = source_mask.shape[0], search.beam_size, search.max_target_length
    source, cache = decoder.start(
        config, head, memory_BxLxD, source_mask, beams=beams, length=length, layout=layout
    )
    blank = jnp.full((rows, beams, length), search.pad_id, jnp.int32).at[:, :, 0].set(search.cls_id)
    none = jnp.full((rows, beams), -jnp.inf)
    first = _Beams(
        jnp.int32(0), blank, none.at[:, 0].set(0.0), blank, none, jnp.zeros(rows, jnp.int32), cache
    )

    def unfinished(state: _Beams) -> Array:
        return (state.place < length - 1) & ~jnp.all(state.number_B >= beams)

    def advance(state: _Beams) -> _Beams:
        last_BxR = jax.lax.dynamic_index_in_dim(
            state.open_BxRxT, state.place, axis=2, keepdims=False
        )
        arguments = (source, state.cache, last_BxR, state.place)
        found, cache = _log_probabilities(config, head, search, *arguments, layout)
        return _pruned(search, state, state.totals_BxR[:, :, None] + found, cache, layout)

    state = jax.lax.while_loop(unfinished, advance, first)
    any_ended_Bx1 = (state.scores_BxR[:, 0] > -jnp.inf)[:, None]
    return jnp.where(any_ended_Bx1, state.ended_BxRxT[:, 0], state.open_BxRxT[:, 0])


def _pruned(
    search: Search, state: _Beams, totals_BxRxV: Array, cache: KeysValues, layout: Layout
) -> _Beams:
    """The beams one place further, of the candidates with these log P."""
    (rows, beams, vocabulary), place = totals_BxRxV.shape, state.place + 1
    # Twice R: at most one candidate of each beam ends, so R that do not are among them.
    totals, flat = jax.lax.top_k(totals_BxRxV.reshape(rows, beams * vocabulary), 2 * beams)
    parents, ids = flat // vocabulary, (flat % vocabulary).astype(jnp.int32)
    targets = _put(jnp.take_along_axis(state.open_BxRxT, parents[:, :, None], axis=1), ids, place)

    ends = ids == search.sep_id
    in_beam = jnp.arange(2 * beams)[None, :] < beams
    running = (state.number_B < beams)[:, None]
    kept = ends & in_beam & running & (totals > -jnp.inf)
    scores = jnp.where(kept, score(totals, place, search.length_penalty), -jnp.inf)
    scores_BxR, best = jax.lax.top_k(jnp.concatenate([state.scores_BxR, scores], axis=1), beams)
    ended = jnp.take_along_axis(
        jnp.concatenate([state.ended_BxRxT, targets], axis=1), best[:, :, None], axis=1
    )

    totals_BxR, likeliest = jax.lax.top_k(jnp.where(ends, -jnp.inf, totals), beams)
    opened = jnp.take_along_axis(targets, likeliest[:, :, None], axis=1)
    parents = jnp.take_along_axis(parents, likeliest, axis=1)[None, :, :, None, None, None]
    cache = KeysValues(*(jnp.take_along_axis(part, parents, axis=2) for part in cache))
    number_B = state.number_B + jnp.sum(kept, axis=1, dtype=jnp.int32)
    return _Beams(
        place, opened, totals_BxR, ended, scores_BxR, number_B, decoder.with_shardings(cache, layout)
    )


def _log_probabilities(
    config: ModelConfig,
    head: Params,
    search: Search,
    source: EncodedSource,
    cache: KeysValues,
    ids_BxR: Array,
    place: Array,
    layout: Layout,
) -> tuple[Array, KeysValues]:
    """(log P [B, R, V] of the next id, -inf where none may follow; the cache)."""
    scores, cache = decoder.step(config, head, source, cache, ids_BxR, place, layout=layout)
    id_V = jnp.arange(scores.shape[-1])
    banned_V = (id_V == search.cls_id) | (id_V == search.pad_id) | (id_V >= search.vocab_size)
    return jnp.where(banned_V[None, None, :], -jnp.inf, jax.nn.log_softmax(scores, axis=-1)), cache


def _put(targets: Array, ids: Array, place: Array) -> Array:
    """`targets` [..., T] with `ids` [...] at `place`."""
    return jax.lax.dynamic_update_slice_in_dim(
        targets, ids[..., None], place, axis=targets.ndim - 1
    )
