"""The decoder's layer: a layer of BERT with cross-attention between its two sublayers.

The names of axes are those of `bertjax.model.functional`, and also T (length of a target), M
(number of positions that are attended to) and R (number of beams of a row).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.config.layers import Place
from bertjax.model.attention.attention import KEYS, QUERIES
from bertjax.model.layer import Mlp
from bertjax.model.layers import ATTENDED, HEADS, Linear, dropout
from bertjax.model.layout import HIDDEN, Layout, Names, Outputs, WrappedLayout
from bertjax.model.residual_norm import ResidualNorm


class KeysValues(NamedTuple):
    """The keys and values that an attention attends to."""

    keys: Array
    """[..., M, H, K]."""
    values: Array
    """[..., M, H, K]."""


class Attention(nn.Module):
    """Multi-head attention (arXiv 1706.03762, section 3.2) on given keys and values.

    It is used for self-attention with a cache and for cross-attention.
    """

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c = self.config
        width = (c.hidden_size,)
        heads = (c.num_attention_heads, c.head_width)
        project = partial(Linear, c, width, heads, ("embed", "heads", "kv"))
        self.query, self.key, self.value = project(), project(), project()
        self.output = Linear(c, heads, width, ("heads", "kv", "embed"))

    def keys_values(self, x_BxMxD: Array) -> KeysValues:
        """Return the keys and values of `x`, [B, M, H, K] each."""
        keys = self.layout(self._heads(self.key(x_BxMxD)), *KEYS)
        values = self.layout(self._heads(self.value(x_BxMxD)), *KEYS)
        return KeysValues(keys, values)

    def __call__(
        self, x_BxTxD: Array, memory: KeysValues, seen_BxTxM: Array, *, deterministic: bool
    ) -> Array:
        """Return [B, T, D]: for each position of `x`, the attention's weighted mean of the values.

        The mask `seen` is bool, true if position t may attend to position m; its axes may have size
        1. A position that may not attend to any other gets the mean of all values. The softmax is
        in float32.
        """
        c, layout = self.config, self.layout
        q_BxTxHxK = layout(self._heads(self.query(x_BxTxD)), *QUERIES)
        # The queries are scaled and not the logits, of which there are more.
        scale = 1.0 / math.sqrt(q_BxTxHxK.shape[-1])
        logits = jnp.einsum(
            "bthk,bmhk->bhtm", q_BxTxHxK * scale, memory.keys, preferred_element_type=jnp.float32
        )
        # The least number and not -inf: a row of -inf alone would give NaN (0 / 0).
        logits = jnp.where(seen_BxTxM[:, None], logits, jnp.finfo(jnp.float32).min)
        probabilities = jax.nn.softmax(logits, axis=-1).astype(memory.values.dtype)
        key = None if deterministic else self.make_rng("dropout")
        names = ("batch", "heads", "length", None)
        rate = c.attention_probs_dropout_prob
        probabilities = dropout(c, probabilities, rate, key, layout, names)
        mixed = jnp.einsum("bhtm,bmhk->bthk", probabilities, memory.values)
        flat = mixed.reshape(*x_BxTxD.shape[:2], -1)
        return self.output(checkpoint_name(flat, ATTENDED))

    def _heads(self, flat: Array) -> Array:
        c = self.config
        # The name by which `remat` chooses what is kept for the backward pass.
        flat = checkpoint_name(flat, HEADS)
        return flat.reshape(*flat.shape[:-1], c.num_attention_heads, c.head_width)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention on the source, and feed-forward.

    Each of the three sublayers is followed by dropout, the residual and a layer norm, as in BERT.
    """

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c, layout = self.config, self.layout
        self.attention = Attention(c, layout)
        self.cross_attention = Attention(c, layout)
        self.mlp = Mlp(c, layout)
        self.attention_layer_norm = ResidualNorm(c, layout)
        self.cross_attention_layer_norm = ResidualNorm(c, layout)
        self.mlp_layer_norm = ResidualNorm(c, layout)

    def __call__(
        self, x_BxTxD: Array, memory_BxLxD: Array, seen: tuple[Array, Array], *, deterministic: bool
    ) -> Array:
        """Return [B, T, D] for whole targets.

        `seen` holds two bool masks: [1, T, T] for `x` and [B, 1, L] for the memory.
        """
        own, source = self.attention.keys_values(x_BxTxD), self.source(memory_BxLxD)
        attended = self.attention(x_BxTxD, own, seen[0], deterministic=deterministic)
        return self._after_attention(x_BxTxD, attended, source, seen[1], deterministic)

    def source(self, memory_BxLxD: Array) -> KeysValues:
        """Return the source's keys and values for cross-attention, [B, L, H, K] each."""
        return self.cross_attention.keys_values(memory_BxLxD)

    def step(
        self,
        x_BxRxD: Array,
        before: KeysValues,
        source: KeysValues,
        seen_Bx1xL: Array,
        position: Array,
    ) -> tuple[Array, KeysValues]:
        """Return the output for one position of each beam, [B, R, D], and the updated cache.

        `before` [B, R, T, H, K] is the cache with all positions before `position`.
        """
        rows, beams, width = x_BxRxD.shape
        length = before.keys.shape[2]
        new = self.attention.keys_values(x_BxRxD)
        cache = KeysValues(
            _put(before.keys, new.keys, position), _put(before.values, new.values, position)
        )
        # Each beam attends only to its own positions, so for self-attention the beams are rows.
        flat = KeysValues(*(part.reshape(rows * beams, *part.shape[2:]) for part in cache))
        # Later positions of the cache are zeros, which must have no share in the softmax.
        seen_1x1xT = (jnp.arange(length) <= position)[None, None, :]
        attended = self.attention(
            x_BxRxD.reshape(rows * beams, 1, width), flat, seen_1x1xT, deterministic=True
        )
        attended = attended.reshape(x_BxRxD.shape)
        # All beams of a row share its source, so for cross-attention the beams are positions.
        return self._after_attention(x_BxRxD, attended, source, seen_Bx1xL, True), cache

    def _after_attention(
        self,
        x_BxTxD: Array,
        attended: Array,
        source: KeysValues,
        seen_Bx1xL: Array,
        deterministic: bool,
    ) -> Array:
        """Return the output of the layer; `attended` is that of self-attention."""

        def add_and_norm(norm: ResidualNorm, x: Array, sublayer: Array, place: Place) -> Array:
            has_dropout = place in self.config.dropout_places and not deterministic
            key = self.make_rng("dropout") if has_dropout else None
            return self.layout(norm(x, sublayer, key), *HIDDEN)

        x_BxTxD = add_and_norm(self.attention_layer_norm, x_BxTxD, attended, "attention")
        crossed = self.cross_attention(x_BxTxD, source, seen_Bx1xL, deterministic=deterministic)
        x_BxTxD = add_and_norm(self.cross_attention_layer_norm, x_BxTxD, crossed, "attention")
        return add_and_norm(self.mlp_layer_norm, x_BxTxD, self.mlp(x_BxTxD), "mlp")


def _put(cache_BxRxTxHxK: Array, new_BxRxHxK: Array, position: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(
        cache_BxRxTxHxK, new_BxRxHxK[:, :, None], position, axis=2
    )


class UncutRows(WrappedLayout):
    """A layout that does not shard the length of rows.

    In a decoding step each row has only one position, so there is nothing to divide among devices
    along the mesh axis `sequence`.
    """

    def parts(self, name: str) -> int:
        """Return the number of parts that an axis is cut into; 1 for the length."""
        return 1 if name == "length" else self.layout.parts(name)

    def __call__(self, x: Array, *names: str | None) -> Array:
        """Return `x` laid out by the names of its axes, the length uncut."""
        return self.layout(x, *_uncut(names))

    def per_device(
        self, function: Callable[..., Any], inputs: Sequence[Names], output: Outputs
    ) -> Callable[..., Any]:
        """Return `function` applied on each device to its part, the length uncut."""
        uncut: Outputs = (
            [_uncut(names) for names in output] if isinstance(output, list) else _uncut(output)
        )
        return self.layout.per_device(function, [_uncut(names) for names in inputs], uncut)


def _uncut(names: Names) -> Names:
    return tuple(None if name == "length" else name for name in names)
