"""BERT's encoder: embeddings, then post-layer-norm layers under one scan."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.model.attention import Segments, SelfAttention
from bertjax.model.kernels import selection as kernels
from bertjax.model.layers import (
    ACTIVATIONS,
    ATTENDED,
    HEADS,
    PROJECTED,
    STATISTICS,
    LayerNorm,
    Linear,
    ResidualNorm,
    dropout,
    truncated_normal,
)
from bertjax.model.layout import ROWS, Layout

# What of a layer is kept for the backward pass.
POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(HEADS, PROJECTED, ATTENDED, STATISTICS),
    "heads": jax.checkpoint_policies.save_only_these_names(PROJECTED, ATTENDED, STATISTICS),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, summed, normalised, and projected where they are
    not as wide as the model; `[B, L]` ids to `[B, L, D]`.
    """

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c = self.config
        table = partial(
            nn.Embed, features=c.embedding_width, dtype=jnp.float32, param_dtype=jnp.float32
        )
        self.word = table(c.vocab_size, embedding_init=truncated_normal(c, "vocab", "embed"))
        self.position = table(
            c.max_position_embeddings, embedding_init=truncated_normal(c, None, "embed")
        )
        self.token_type = table(
            c.type_vocab_size, embedding_init=truncated_normal(c, None, "embed")
        )
        self.layer_norm = LayerNorm(c)
        if c.embedding_size:
            self.projection = Linear(c, (c.embedding_size,), (c.hidden_size,), (None, "embed"))

    def __call__(
        self, input_ids: Array, segment_ids: Array, position_ids: Array, *, deterministic: bool
    ) -> Array:
        c, layout = self.config, self.layout
        # Gathered before the rows are taken: else the compiler fetches the whole batch instead.
        words = jnp.take(layout(self.word.embedding, "vocab", None), input_ids, axis=0)
        positions = self.position(position_ids + c.position_offset)
        summed = layout(words + positions + self.token_type(segment_ids), *ROWS)
        key = None if deterministic else self.make_rng("dropout")
        embedded = dropout(c, self.layer_norm(summed), c.hidden_dropout_prob, key, layout, ROWS)
        return layout(self.projection(embedded), *ROWS) if c.embedding_size else embedded


class Mlp(nn.Module):
    """The feed-forward sublayer, `[B, L, D]` to `[B, L, D]` by way of F."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        c = self.config
        up_BxLxF = Linear(c, (c.hidden_size,), (c.intermediate_size,), ("embed", "mlp"), name="up")(
            x_BxLxD
        )
        up_BxLxF = checkpoint_name(self.layout(up_BxLxF, "batch", "length", "mlp"), PROJECTED)
        feeds_kernel = kernels.on_tpu(c, self.layout)
        down = Linear(
            c, (c.intermediate_size,), (c.hidden_size,), ("mlp", "embed"), feeds_kernel, name="down"
        )
        return down(ACTIVATIONS[c.hidden_act](up_BxLxF))


class Layer(nn.Module):
    """One layer: attention and feed-forward, each followed by dropout, the residual and a layer
    norm.
    """

    config: ModelConfig
    layout: Layout
    deterministic: bool
    keep_output: bool

    @nn.compact
    def __call__(
        self, x_BxLxD: Array, segments: Segments, everywhere: Array | None
    ) -> tuple[Array, Array | None]:
        c, layout = self.config, self.layout
        seen = c.is_global(0) if everywhere is None else everywhere

        def add_and_norm(x: Array, sublayer: Array, name: str) -> Array:
            key = None if self.deterministic else self.make_rng("dropout")
            return layout(ResidualNorm(c, layout, name=name)(x, sublayer, key), *ROWS)

        attended = SelfAttention(c, layout, name="attention")(
            x_BxLxD, segments, seen, deterministic=self.deterministic
        )
        x_BxLxD = add_and_norm(x_BxLxD, attended, "attention_layer_norm")
        x_BxLxD = add_and_norm(x_BxLxD, Mlp(c, layout, name="mlp")(x_BxLxD), "mlp_layer_norm")
        return x_BxLxD, x_BxLxD if self.keep_output else None


class Repeated(nn.Module):
    """The one layer of a model that shares it, applied N times; its parameters are named as a
    layer's.
    """

    config: ModelConfig
    layout: Layout
    deterministic: bool
    keep_output: bool

    def setup(self) -> None:
        self.layer = _layer(self.config)(
            self.config, self.layout, self.deterministic, self.keep_output
        )
        nn.share_scope(self, self.layer)

    def __call__(
        self, x_BxLxD: Array, segments: Segments, everywhere: Array | None
    ) -> tuple[Array, Array | None]:
        c = self.config
        repeated = nn.scan(
            lambda layer, x_BxLxD, segments, everywhere: layer(x_BxLxD, segments, everywhere),
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=(nn.broadcast, 0),
            length=c.num_hidden_layers,
            unroll=min(c.scan_unroll, c.num_hidden_layers),
        )
        return repeated(self.layer, x_BxLxD, segments, everywhere)


class Encoder(nn.Module):
    """The N layers, their parameters stacked on a first axis, whose size is 1 where they are
    shared.
    """

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(
        self, x_BxLxD: Array, segments: Segments, *, deterministic: bool, keep_layers: bool
    ) -> tuple[Array, Array | None]:
        c = self.config
        stack = 1 if c.share_layers else c.num_hidden_layers
        scanned = nn.scan(
            Repeated if c.share_layers else _layer(c),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, 0),
            length=stack,
            unroll=min(c.scan_unroll, stack),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        everywhere = jnp.array(c.global_layers) if c.alternates else None
        if c.share_layers and everywhere is not None:
            everywhere = everywhere[None, :]
        layers = scanned(c, self.layout, deterministic, keep_layers, name="layers")
        x_BxLxD, kept = layers(x_BxLxD, segments, everywhere)
        return x_BxLxD, kept[0] if c.share_layers and keep_layers else kept


def _layer(config: ModelConfig) -> type[nn.Module]:
    if config.remat == "none":
        return Layer
    return nn.remat(Layer, prevent_cse=False, policy=POLICIES[config.remat])
