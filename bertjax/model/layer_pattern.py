"""Layers that differ from each other, in a pattern: global and local ones alternate, or they mix.

Whether a layer is global is known to the compiler here, so its program has no condition.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.attention.self_attention import Surroundings
from bertjax.model.layer import Kind, State, layer_class
from bertjax.model.layout import Layout


class Pattern(NamedTuple):
    """What all layers of `run_pattern` share."""

    config: ModelConfig
    layout: Layout
    surroundings: Surroundings
    mix: Array | None
    """Weights of all outputs so far after each sublayer, [2 N, 2 N + 1], with `layer_mix`."""
    key: Array | None
    """Key of the dropout of all layers; None: no dropout."""
    keep_layers: bool


def run_pattern(pattern: Pattern, params: Any, x_BxLxD: Array) -> tuple[Array, Array | None]:
    """Return the last layer's output and, with `keep_layers`, those of all layers.

    `params` are the layers' parameters, stacked along their first axis. A scan runs over the
    repetitions of the pattern; the layers that are left over follow it. Layers that mix are all
    written out: a scan would keep the outputs so far once for each iteration.
    """
    c = pattern.config
    count, size = c.num_hidden_layers, c.global_attn_every_n_layers
    if c.layer_mix or c.scan_unroll >= count or count < 2 * size:
        state = State(x_BxLxD, (x_BxLxD,) if c.layer_mix else ())
        state, kept = _run(pattern, params, state, 0, range(count), in_scan=False)
        return state.x_BxLxD, kept
    repeats = count // size
    # Shared parameters are in the body of the scan, and not cut.
    cut = None
    if not c.share_layers:
        whole = jax.tree.map(lambda p: p[: repeats * size], params)
        cut = jax.tree.map(lambda p: p.reshape(repeats, size, *p.shape[1:]), whole)

    def repetition(state: State, numbered: tuple[Array, Any]) -> tuple[State, Array | None]:
        first, layers = numbered
        layers = params if c.share_layers else layers
        return _run(pattern, layers, state, first, range(size), in_scan=True)

    firsts = jnp.arange(repeats) * size
    unroll = min(max(c.scan_unroll // size, 1), repeats)
    state, kept = jax.lax.scan(repetition, State(x_BxLxD), (firsts, cut), unroll=unroll)
    every = [] if kept is None else [kept.reshape(-1, *kept.shape[2:])]
    rest = count - repeats * size
    if rest:
        layers = params
        if not c.share_layers:
            layers = jax.tree.map(lambda p: p[repeats * size :], params)
        state, last = _run(pattern, layers, state, repeats * size, range(rest), in_scan=False)
        every += [] if last is None else [last]
    return state.x_BxLxD, jnp.concatenate(every) if every else None


def _run(
    pattern: Pattern,
    layers: Any,
    state: State,
    first: Array | int,
    places: range,
    *,
    in_scan: bool,
) -> tuple[State, Array | None]:
    """Run the layers `first` + each of the `places`, which are also their places in the pattern."""
    c, key = pattern.config, pattern.key
    layer_of_kind = partial(
        layer_class(c, in_scan=in_scan), c, pattern.layout, key is None, pattern.keep_layers
    )
    outputs: list[Array] = []
    for place in places:
        index = 0 if c.share_layers else place
        own = jax.tree.map(lambda p, index=index: p[index], layers)
        number = first + place
        layer = layer_of_kind(c.is_global(place))
        is_later = isinstance(first, int) and place > 0
        kind = Kind(is_first=None if is_later else number == 0)
        if pattern.mix is not None:
            kind = kind._replace(mix_2xM=pattern.mix[2 * place : 2 * place + 2])
        rngs = None if key is None else {"dropout": jax.random.fold_in(key, number)}
        result: Any = layer.apply({"params": own}, state, pattern.surroundings, kind, rngs=rngs)
        state, output = result
        outputs.append(output)
    return state, jnp.stack(outputs) if pattern.keep_layers else None
