"""One layer of the encoder: attention and feed-forward, each with norms, dropout and residual."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.config.layers import Place
from bertjax.model.attention.self_attention import SelfAttention, Surroundings
from bertjax.model.kernels import selection as kernels
from bertjax.model.layers import (
    ACTIVATIONS,
    ATTENDED,
    HEADS,
    NORMALIZED,
    PROJECTED,
    STATISTICS,
    Linear,
    Norm,
    dropout,
)
from bertjax.model.layout import HIDDEN, Layout
from bertjax.model.residual_norm import PreNorm, ResidualNorm

# For each value of `model.remat`: which values of a layer are kept for the backward pass, besides
# the layer's input. All other values are recomputed. Each name is explained at its definition.
POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(
        HEADS, PROJECTED, ATTENDED, STATISTICS, NORMALIZED
    ),
    "heads": jax.checkpoint_policies.save_only_these_names(PROJECTED, ATTENDED, STATISTICS),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Kind(NamedTuple):
    """What differs from layer to layer as numbers, beside the parameters."""

    is_first: Array | bool | None = None
    """Whether it is the first layer; None where this makes no difference."""
    mix_2xM: Array | None = None
    """Weights of the outputs so far after each of the two sublayers."""


class State(NamedTuple):
    """What a layer gives to the next."""

    x_BxLxD: Array
    """Hidden states."""
    outputs: tuple[Array, ...] = ()
    """With `layer_mix`: the embeddings and the outputs of all sublayers so far."""


class Mlp(nn.Module):
    """Feed-forward sublayer, `[B, L, D]` to `[B, L, F]` and back to `[B, L, D]`."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(self, x_BxLxD: Array, kept: Array | None = None) -> Array:
        """Return the sublayer's output; `kept` is that of `layers.linear`."""
        c = self.config
        width, inner = (c.hidden_size,), (c.intermediate_size,)
        has_bias = "mlp" in c.biases

        def to_inner(name: str) -> Array:
            linear = Linear(c, width, inner, ("embed", "mlp"), use_bias=has_bias, name=name)
            projected = self.layout(linear(x_BxLxD, kept), "batch", "length", "mlp")
            return checkpoint_name(projected, PROJECTED)

        up_BxLxF, activation = to_inner("up"), ACTIVATIONS[c.hidden_act]
        if c.feed_forward == "gated":
            active_BxLxF = activation(to_inner("gate")) * up_BxLxF
        else:
            active_BxLxF = activation(up_BxLxF)
        if c.norm_inside:
            active_BxLxF = Norm(c, name="inner_norm")(active_BxLxF)
        # The norm's kernel takes this result; that of `up` goes into the activation, which is none.
        down = Linear(
            c,
            inner,
            width,
            ("mlp", "embed"),
            kernels.on_tpu(c, self.layout),
            use_bias="mlp_output" in c.biases,
            name="down",
        )
        return down(active_BxLxF)


class Layer(nn.Module):
    """One layer: attention and feed-forward, with norms at the places that `config` says.

    Returns (state, kept output): the kept output is the hidden states again if `keep_output` is
    set, and None otherwise.
    """

    config: ModelConfig
    layout: Layout
    deterministic: bool
    keep_output: bool
    is_global: bool = True
    """Whether attention is global; the compiler knows it."""

    @nn.compact
    def __call__(
        self, state: State, surroundings: Surroundings, kind: Kind
    ) -> tuple[State, Array | None]:
        c, layout = self.config, self.layout
        attention = SelfAttention(c, layout, name="attention")

        def attend(x_BxLxD: Array, kept: Array | None) -> Array:
            return attention(
                x_BxLxD, surroundings, self.is_global, kept, deterministic=self.deterministic
            )

        no_norm = None if c.first_norm else kind.is_first
        x_BxLxD = self._add("attention", state.x_BxLxD, attend, no_norm)
        state = _mixed(state, x_BxLxD, None if kind.mix_2xM is None else kind.mix_2xM[0])
        x_BxLxD = self._add("mlp", state.x_BxLxD, Mlp(c, layout, name="mlp"))
        state = _mixed(state, x_BxLxD, None if kind.mix_2xM is None else kind.mix_2xM[1])
        # None, so that the scan does not stack N outputs that nobody reads.
        return state, state.x_BxLxD if self.keep_output else None

    def _add(
        self,
        sublayer: Place,
        x: Array,
        function: Callable[[Array, Array | None], Array],
        no_norm: Array | bool | None = None,
    ) -> Array:
        """Return `x` plus the output of a sublayer with dropout; where `no_norm`, without the norm
        before it.
        """
        c, layout = self.config, self.layout
        norm = f"{sublayer}_layer_norm"
        if c.norm_place == "after":
            added = function(x, None)
            return layout(
                ResidualNorm(c, layout, name=norm)(x, added, self._key(sublayer)), *HIDDEN
            )
        x, normal, kept = PreNorm(c, layout, name=norm)(x)
        if no_norm is not None:
            normal, kept = jnp.where(no_norm, x, normal), None
        added = function(normal, kept)
        if c.norm_place == "both":
            added = Norm(c, name=f"{sublayer}_output_norm")(checkpoint_name(added, PROJECTED))
        dropped = dropout(c, added, c.hidden_dropout_prob, self._key(sublayer), layout, HIDDEN)
        summed = x.astype(jnp.float32) + dropped.astype(jnp.float32)
        return checkpoint_name(layout(summed.astype(c.dtype), *HIDDEN), PROJECTED)

    def _key(self, place: Place) -> Array | None:
        if self.deterministic or place not in self.config.dropout_places:
            return None
        return self.make_rng("dropout")


def _mixed(state: State, x: Array, weights_M: Array | None) -> State:
    """Return the state after a sublayer with the output `x` (arXiv 2402.02622, equation 1)."""
    if weights_M is None:
        return State(x)
    outputs = (*state.outputs, x)
    mixed = jnp.zeros(x.shape, jnp.float32)
    for number, output in enumerate(outputs):
        mixed += weights_M[number] * output.astype(jnp.float32)
    return State(mixed.astype(x.dtype), outputs)


def layer_class(config: ModelConfig, *, in_scan: bool = True) -> type[nn.Module]:
    """Return `Layer`, or one that is computed again in the backward pass, as `remat` says."""
    if config.remat == "none":
        return Layer
    # Inside a scan the compiler cannot merge the recomputation with the first computation, so
    # `prevent_cse` is not needed.
    return nn.remat(Layer, prevent_cse=not in_scan, policy=POLICIES[config.remat])


class SharedLayer(nn.Module):
    """One layer applied N times, with the same parameters (ALBERT, arXiv 1909.11942, section 3.1).

    Its parameters have the same names as those of `Layer`.
    """

    config: ModelConfig
    layout: Layout
    deterministic: bool
    keep_output: bool
    is_global: bool = True

    def setup(self) -> None:
        self.layer = layer_class(self.config)(
            self.config, self.layout, self.deterministic, self.keep_output, self.is_global
        )
        nn.share_scope(self, self.layer)

    def __call__(
        self, state: State, surroundings: Surroundings, kind: Kind
    ) -> tuple[State, Array | None]:
        c = self.config
        # One set of parameters, but each use has a dropout key of its own, as separate layers have.
        repeated = nn.scan(
            lambda layer, state, surroundings, kind: layer(state, surroundings, kind),
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=(nn.broadcast, 0),
            length=c.num_hidden_layers,
            unroll=min(c.scan_unroll, c.num_hidden_layers),
        )
        if not c.first_norm:
            kind = kind._replace(is_first=jnp.arange(c.num_hidden_layers) == 0)
        return repeated(self.layer, state, surroundings, kind)
