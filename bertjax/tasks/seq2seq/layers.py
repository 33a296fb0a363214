"""The decoder's layer: BERT's, with attention on the encoder's output between its two sublayers.

Axes beside those of `bertjax.model.functional`: T length of a target, M places attended to, R beams
of a row.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.model.attention import KEYS, QUERIES
from bertjax.model.encoder import Mlp
from bertjax.model.layers import ATTENDED, HEADS, Linear, dropout
from bertjax.model.layout import HIDDEN, Layout, Names
from bertjax.model.residual_norm import ResidualNorm


class KeysValues(NamedTuple):
    """What one attention looks at."""

    keys: Array
    """[..., M, H, K]."""
    values: Array
    """[..., M, H, K]."""


class Attention(nn.Module):
    """Multi-head attention (arXiv 1706.03762, section 3.2) on keys and values made beforehand, of
    any place.
    """

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c = self.config
        width, heads = (
            (c.hidden_size,),
            (c.num_attention_heads, c.hidden_size // c.num_attention_heads),
        )
        project = partial(Linear, c, width, heads, ("embed", "heads", "kv"))
        self.query, self.key, self.value = project(), project(), project()
        self.output = Linear(c, heads, width, ("heads", "kv", "embed"))

    def keys_values(self, x_BxMxD: Array) -> KeysValues:
        """Keys and values [B, M, H, K] of what is attended to."""
        return KeysValues(
            *(self.layout(self._heads(part(x_BxMxD)), *KEYS) for part in (self.key, self.value))
        )

    def __call__(
        self, x_BxTxD: Array, at: KeysValues, seen_BxTxM: Array, *, deterministic: bool
    ) -> Array:
        """`[B, T, D]`: each place of `x` mixes the values that `seen` (bool; its axes may be 1)
        shows it.

        A place that sees nothing gets the mean of the values. The softmax is in float32.
        """
        c, layout = self.config, self.layout
        q_BxTxHxK = layout(self._heads(self.query(x_BxTxD)), *QUERIES)
        scale = 1.0 / math.sqrt(q_BxTxHxK.shape[-1])
        logits = jnp.einsum(
            "bthk,bmhk->bhtm", q_BxTxHxK * scale, at.keys, preferred_element_type=jnp.float32
        )
        logits = jnp.where(seen_BxTxM[:, None], logits, jnp.finfo(jnp.float32).min)
        probabilities = jax.nn.softmax(logits, axis=-1).astype(at.values.dtype)
        key = None if deterministic else self.make_rng("dropout")
        rate, names = c.attention_probs_dropout_prob, ("batch", "heads", "length", None)
        probabilities = dropout(c, probabilities, rate, key, layout, names)
        mixed = jnp.einsum("bhtm,bmhk->bthk", probabilities, at.values)
        return self.output(checkpoint_name(mixed.reshape(x_BxTxD.shape), ATTENDED))

    def _heads(self, flat: Array) -> Array:
        c = self.config
        flat = checkpoint_name(flat, HEADS)
        return flat.reshape(
            *flat.shape[:-1], c.num_attention_heads, c.hidden_size // c.num_attention_heads
        )


class DecoderLayer(nn.Module):
    """Self-attention, attention on the source, feed-forward, each followed by dropout, the
    residual, a layer norm.
    """

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c, layout = self.config, self.layout
        self.attention, self.cross_attention, self.mlp = (
            Attention(c, layout),
            Attention(c, layout),
            Mlp(c, layout),
        )
        self.attention_layer_norm = ResidualNorm(c, layout)
        self.cross_attention_layer_norm = ResidualNorm(c, layout)
        self.mlp_layer_norm = ResidualNorm(c, layout)

    def __call__(
        self, x_BxTxD: Array, memory_BxLxD: Array, seen: tuple[Array, Array], *, deterministic: bool
    ) -> Array:
        """`[B, T, D]` of whole targets; `seen` is for `x` (bool [1, T, T]) and for the memory (bool
        [B, 1, L]).
        """
        own, source = self.attention.keys_values(x_BxTxD), self.source(memory_BxLxD)
        attended = self.attention(x_BxTxD, own, seen[0], deterministic=deterministic)
        return self._above(x_BxTxD, attended, source, seen[1], deterministic)

    def source(self, memory_BxLxD: Array) -> KeysValues:
        """What cross-attention looks at, [B, L, H, K]: the same at every place of the target."""
        return self.cross_attention.keys_values(memory_BxLxD)

    def step(
        self,
        x_BxRxD: Array,
        before: KeysValues,
        source: KeysValues,
        seen_Bx1xL: Array,
        place: Array,
    ) -> tuple[Array, KeysValues]:
        """One place of each beam; `before` [B, R, T, H, K] holds the places before it, and is given
        back with it.
        """
        (rows, beams, width), length = x_BxRxD.shape, before.keys.shape[2]
        new = self.attention.keys_values(x_BxRxD)
        before = KeysValues(*map(partial(_put, place=place), before, new))
        flat = KeysValues(*(part.reshape(rows * beams, *part.shape[2:]) for part in before))
        seen_1x1xT = (jnp.arange(length) <= place)[None, None, :]
        attended = self.attention(
            x_BxRxD.reshape(rows * beams, 1, width), flat, seen_1x1xT, deterministic=True
        )
        return self._above(
            x_BxRxD, attended.reshape(x_BxRxD.shape), source, seen_Bx1xL, True
        ), before

    def _above(
        self,
        x_BxTxD: Array,
        attended: Array,
        source: KeysValues,
        seen_Bx1xL: Array,
        deterministic: bool,
    ) -> Array:
        """The layer from its first residual on."""

        def add_and_norm(norm: ResidualNorm, x: Array, sublayer: Array) -> Array:
            return self.layout(
                norm(x, sublayer, None if deterministic else self.make_rng("dropout")), *HIDDEN
            )

        x_BxTxD = add_and_norm(self.attention_layer_norm, x_BxTxD, attended)
        crossed = self.cross_attention(x_BxTxD, source, seen_Bx1xL, deterministic=deterministic)
        x_BxTxD = add_and_norm(self.cross_attention_layer_norm, x_BxTxD, crossed)
        return add_and_norm(self.mlp_layer_norm, x_BxTxD, self.mlp(x_BxTxD))


def _put(before_BxRxTxHxK: Array, new_BxRxHxK: Array, place: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(
        before_BxRxTxHxK, new_BxRxHxK[:, :, None], place, axis=2
    )


@dataclass(frozen=True)
class Whole:
    """A layout that cuts no row: where a step has one place of each, `sequence` devices have
    nothing to share.
    """

    layout: Layout

    @property
    def platform(self) -> str:
        return self.layout.platform

    def parts(self, name: str) -> int:
        return 1 if name == "length" else self.layout.parts(name)

    def __call__(self, x: Array, *names: str | None) -> Array:
        return self.layout(x, *_uncut(names))

    def per_device(
        self, function: Callable[..., Array], inputs: Sequence[Names], output: Names
    ) -> Callable[..., Array]:
        return self.layout.per_device(function, [_uncut(names) for names in inputs], _uncut(output))


def _uncut(names: Names) -> Names:
    return tuple(None if name == "length" else name for name in names)
