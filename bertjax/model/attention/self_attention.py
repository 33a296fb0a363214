"""The self-attention sublayer: projections, positions, attention, and the output projection."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.model.attention.attention import (
    KEYS,
    QUERIES,
    Segments,
    attention,
    attention_scores,
)
from bertjax.model.attention.fused_long import ROWS, fused_long
from bertjax.model.attention.fused_relative import fused_relative
from bertjax.model.attention.relative_attention import RelativeVectors
from bertjax.model.attention.rotary import Rotation, rotate
from bertjax.model.kernels import selection as kernels
from bertjax.model.kernels.tpu_long_attention import grouped
from bertjax.model.layers import ACTIVATIONS, ATTENDED, HEADS, Linear, Norm, linear
from bertjax.model.layout import Layout


class Surroundings(NamedTuple):
    """What every layer's attention reads beside the hidden states."""

    segments: Segments
    rotations: tuple[Rotation, Rotation] | None = None
    """Rotary positions of global and of local layers."""
    relative_RxD: Array | None = None
    """Vectors of relative positions."""
    last_BxL: Array | None = None
    """The last index that each query sees, where rows are causal; without kernels alone."""


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection; `[B, L, D]` to `[B, L, D]`."""

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c = self.config
        width, heads = (c.hidden_size,), (c.num_attention_heads, c.head_width)
        projection = partial(
            Linear,
            c,
            # Queries, keys and values go into attention's kernel, the output into the norm's.
            feeds_kernel=kernels.on_tpu(c, self.layout),
            use_bias="attention" in c.biases,
        )
        axes = ("embed", "heads", "kv")
        self.query = projection(width, heads, axes)
        # Fewer heads of keys and values need not be a multiple of the devices that share the heads.
        fewer = (c.key_value_heads, c.head_width)
        fewer_axes = ("embed", None, "kv") if c.num_key_value_heads else axes
        self.key = projection(width, fewer, fewer_axes)
        self.value = projection(width, fewer, fewer_axes)
        if c.value_gate:
            self.gate = projection(width, heads, axes)
        if c.relative_positions and c.relative_projections == "own":
            self.relative_query = projection(width, heads, axes)
            self.relative_key = projection(width, heads, axes)
        if c.norm_inside:
            self.inner_norm = Norm(c)
        self.output = projection(heads, width, ("heads", "kv", "embed"))

    def __call__(
        self,
        x_BxLxD: Array,
        surroundings: Surroundings,
        is_global: bool,
        kept: Array | None = None,
        *,
        deterministic: bool,
    ) -> Array:
        """Return the sublayer's output; `kept` is `x` again, as in `layers.linear`."""
        c, layout, length = self.config, self.layout, x_BxLxD.shape[1]
        rotation = _rotation(surroundings, is_global)
        is_long = kernels.long_attention(c, length, is_global, layout)
        key = None if deterministic or is_long else self.make_rng("dropout")
        kept_mixed = None
        if is_long:
            mixed, kept_mixed = fused_long(
                c,
                self._grouped(x_BxLxD, kept),
                surroundings.segments,
                window=0 if is_global else c.local_attention,
                angles=None if rotation is None else rotation.packed,
                layout=layout,
            )
        elif kernels.relative_attention(c, length, layout):
            assert surroundings.relative_RxD is not None
            mixed, kept_mixed = fused_relative(
                c,
                self._grouped(x_BxLxD, kept),
                surroundings.segments,
                self._relative_vectors(surroundings.relative_RxD),
                key=key,
                layout=layout,
            )
        else:
            mixed = self._attention(x_BxLxD, surroundings, rotation, is_global, key)
        if kept_mixed is not None and (c.value_gate or c.norm_inside):
            # These read the result once more in the backward pass, so that it must be the kept one.
            mixed, kept_mixed = kept_mixed, None
        if c.value_gate:
            mixed = mixed * ACTIVATIONS["gelu"](checkpoint_name(self.gate(x_BxLxD, kept), HEADS))
        if c.norm_inside:
            mixed = self.inner_norm(mixed)
        return self.output(mixed, kept_mixed)

    def _attention(
        self,
        x_BxLxD: Array,
        surroundings: Surroundings,
        rotation: Rotation | None,
        is_global: bool,
        key: Array | None,
    ) -> Array:
        c, layout = self.config, self.layout
        q, k, relative = self._compared(x_BxLxD, surroundings, rotation)
        v = self._heads(self.value(x_BxLxD), *KEYS)
        mixed = attention(
            c,
            q,
            k,
            v,
            surroundings.segments,
            key=key,
            is_global=is_global,
            layout=layout,
            relative=relative,
            last_BxL=surroundings.last_BxL,
        )
        return checkpoint_name(mixed.reshape(*x_BxLxD.shape[:2], -1), ATTENDED)

    def _compared(
        self, x_BxLxD: Array, surroundings: Surroundings, rotation: Rotation | None
    ) -> tuple[Array, Array, RelativeVectors | None]:
        """Return what scores are made of: queries and keys [B, L, H, K], and relative vectors."""
        c = self.config
        q = self._heads(self.query(x_BxLxD), *QUERIES)
        k = self._heads(self.key(x_BxLxD), *KEYS)
        if rotation is not None:
            q, k = rotate(c, q, rotation), rotate(c, k, rotation)
        relative = None
        if surroundings.relative_RxD is not None:
            relative = self._relative_vectors(surroundings.relative_RxD)
        return q, k, relative

    def projections(self, x_BxLxD: Array) -> tuple[Array, Array, Array]:
        """Return queries, keys and values, heads side by side, before positions rotate them."""
        return self.query(x_BxLxD), self.key(x_BxLxD), self.value(x_BxLxD)

    def scores(self, x_BxLxD: Array, surroundings: Surroundings, is_global: bool) -> Array:
        """Return the scores before the softmax, [B, H, L, L] float32, also of unseen pairs."""
        rotation = _rotation(surroundings, is_global)
        q, k, relative = self._compared(x_BxLxD, surroundings, rotation)
        return attention_scores(self.config, q, k, relative, self.layout)

    def _grouped(self, x_BxLxD: Array, kept: Array | None) -> Array:
        """Return queries, keys and values as the kernel takes them, [B, L, 3 * H * K]."""
        c, layers = self.config, (self.query, self.key, self.value)
        if c.num_key_value_heads or self.query.is_matrix:
            q, k, v = (self._heads(layer(x_BxLxD, kept), *KEYS) for layer in layers)
            flat = [x.reshape(*x_BxLxD.shape[:2], -1) for x in (q, k, v)]
            return self.layout(grouped(*flat), *ROWS)
        kernels_DxD, biases_D = zip(*(layer.flat() for layer in layers), strict=True)
        bias = None if biases_D[0] is None else grouped(*biases_D)
        kernel = grouped(*kernels_DxD)
        qkv = linear(x_BxLxD.astype(c.dtype), kernel, bias, feeds_kernel=True, kept=kept)
        return self.layout(checkpoint_name(qkv, HEADS), *ROWS)

    def _heads(self, x_BxLxD: Array, *names: str | None) -> Array:
        """Return queries, keys or values with their heads apart, [B, L, H, K]."""
        c = self.config
        named = checkpoint_name(x_BxLxD, HEADS)
        heads = named.reshape(*named.shape[:2], -1, c.head_width)
        # Each head of keys and values serves as many heads of queries that follow each other.
        repeated = jnp.repeat(heads, c.num_attention_heads // heads.shape[2], axis=2)
        return self.layout(repeated, *names)

    def _relative_vectors(self, vectors_RxD: Array) -> RelativeVectors:
        c = self.config
        is_own = c.relative_projections == "own"
        queries = self.relative_query if is_own else self.query
        keys = self.relative_key if is_own else self.key
        shape = (c.relative_positions, c.num_attention_heads, c.head_width)
        return RelativeVectors(
            checkpoint_name(queries(vectors_RxD), HEADS).reshape(shape),
            checkpoint_name(keys(vectors_RxD), HEADS).reshape(shape),
        )


def _rotation(surroundings: Surroundings, is_global: bool) -> Rotation | None:
    """Return the rotation of a global or a local layer; None without rotary positions."""
    if surroundings.rotations is None:
        return None
    in_global, in_local = surroundings.rotations
    return in_global if is_global else in_local
