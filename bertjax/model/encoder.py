"""BERT's encoder: embeddings, then post-norm layers that run in one `scan`.

With the scan, the program of one layer is compiled and used for all layers. The parameters of the
layers are stacked along a first axis.
"""

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
    dropout,
    truncated_normal,
)
from bertjax.model.layout import HIDDEN, Layout
from bertjax.model.residual_norm import ResidualNorm

# For each value of `model.remat`: which values of a layer are kept for the backward pass, besides
# the layer's input. All other values are recomputed. Each name is explained at its definition.
POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(HEADS, PROJECTED, ATTENDED, STATISTICS),
    "heads": jax.checkpoint_policies.save_only_these_names(PROJECTED, ATTENDED, STATISTICS),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalized; `[B, L]` ids to `[B, L, D]`.

    If `embedding_size` is set, the embeddings have this width and are projected to the hidden size
    (ALBERT, arXiv 1909.11942, section 3.1).
    """

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c = self.config
        # In float32, because the sum is first normalized and only then rounded to `config.dtype`.
        table = partial(
            nn.Embed, features=c.embedding_width, dtype=jnp.float32, param_dtype=jnp.float32
        )
        init_words = truncated_normal(c, "vocab", "embed")
        # These two have few rows, so they are cut along their width alone.
        init_others = truncated_normal(c, None, "embed")
        self.word = table(c.vocab_size, embedding_init=init_words)
        self.position = table(c.max_position_embeddings, embedding_init=init_others)
        self.token_type = table(c.type_vocab_size, embedding_init=init_others)
        self.layer_norm = LayerNorm(c)
        if c.embedding_size:
            self.projection = Linear(c, (c.embedding_size,), (c.hidden_size,), (None, "embed"))

    def __call__(
        self, input_ids: Array, segment_ids: Array, position_ids: Array, *, deterministic: bool
    ) -> Array:
        c, layout = self.config, self.layout
        # The layout makes the compiler gather the table from the devices before the lookup.
        # Otherwise it would move the whole batch between devices.
        words = jnp.take(layout(self.word.embedding, "vocab", None), input_ids, axis=0)
        positions = self.position(position_ids + c.position_offset)
        summed = layout(words + positions + self.token_type(segment_ids), *HIDDEN)
        key = None if deterministic else self.make_rng("dropout")
        # Norm, then dropout, then the projection: the first two are the original BERT's order
        # (modeling.py, layer_norm_and_dropout), the last is ALBERT's.
        embedded = dropout(c, self.layer_norm(summed), c.hidden_dropout_prob, key, layout, HIDDEN)
        if not c.embedding_size:
            return embedded
        return layout(self.projection(embedded), *HIDDEN)


class Mlp(nn.Module):
    """Feed-forward sublayer, `[B, L, D]` to `[B, L, F]` and back to `[B, L, D]`."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        c = self.config
        width, inner = (c.hidden_size,), (c.intermediate_size,)
        feeds_kernel = kernels.on_tpu(c, self.layout)
        up = Linear(c, width, inner, ("embed", "mlp"), name="up")
        # The norm's kernel takes this result; that of `up` goes into the activation, which is none.
        down = Linear(c, inner, width, ("mlp", "embed"), feeds_kernel, name="down")
        up_BxLxF = self.layout(up(x_BxLxD), "batch", "length", "mlp")
        up_BxLxF = checkpoint_name(up_BxLxF, PROJECTED)
        return down(ACTIVATIONS[c.hidden_act](up_BxLxF))


class Layer(nn.Module):
    """One layer: attention and feed-forward, each followed by dropout, residual and layer norm.

    Returns (hidden states, kept output): the kept output is the hidden states again if
    `keep_output` is set, and None otherwise.
    """

    config: ModelConfig
    layout: Layout
    deterministic: bool
    keep_output: bool

    @nn.compact
    def __call__(
        self, x_BxLxD: Array, segments: Segments, is_global: Array | None
    ) -> tuple[Array, Array | None]:
        """Run the layer; `is_global` selects its attention, None if all layers have the same."""
        c, layout = self.config, self.layout
        attention_is_global = c.is_global(0) if is_global is None else is_global

        def add_and_norm(x: Array, sublayer: Array, name: str) -> Array:
            key = None if self.deterministic else self.make_rng("dropout")
            return layout(ResidualNorm(c, layout, name=name)(x, sublayer, key), *HIDDEN)

        attended = SelfAttention(c, layout, name="attention")(
            x_BxLxD, segments, attention_is_global, deterministic=self.deterministic
        )
        x_BxLxD = add_and_norm(x_BxLxD, attended, "attention_layer_norm")
        x_BxLxD = add_and_norm(x_BxLxD, Mlp(c, layout, name="mlp")(x_BxLxD), "mlp_layer_norm")
        # None, so that the scan does not stack N outputs that nobody reads.
        return x_BxLxD, x_BxLxD if self.keep_output else None


class SharedLayer(nn.Module):
    """One layer applied N times, with the same parameters (ALBERT, arXiv 1909.11942, section 3.1).

    Its parameters have the same names as those of `Layer`.
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
        self, x_BxLxD: Array, segments: Segments, is_global: Array | None
    ) -> tuple[Array, Array | None]:
        c = self.config
        # One set of parameters, but each use has a dropout key of its own, as separate layers have.
        repeated = nn.scan(
            lambda layer, x_BxLxD, segments, is_global: layer(x_BxLxD, segments, is_global),
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=(nn.broadcast, 0),
            length=c.num_hidden_layers,
            unroll=min(c.scan_unroll, c.num_hidden_layers),
        )
        return repeated(self.layer, x_BxLxD, segments, is_global)


class Encoder(nn.Module):
    """The N layers, with their parameters stacked along a first axis.

    The size of this axis is N, or 1 if the layers share their parameters.
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
            SharedLayer if c.share_layers else _layer(c),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, 0),
            length=stack,
            unroll=min(c.scan_unroll, stack),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        # None if all layers have the same kind of attention; then the program has no condition.
        is_global = jnp.array(c.attends_globally) if c.alternates else None
        if c.share_layers and is_global is not None:
            is_global = is_global[None, :]  # for the inner scan of `SharedLayer`
        layers = scanned(c, self.layout, deterministic, keep_layers, name="layers")
        x_BxLxD, kept = layers(x_BxLxD, segments, is_global)
        if c.share_layers and keep_layers:
            kept = kept[0]
        return x_BxLxD, kept


def _layer(config: ModelConfig) -> type[nn.Module]:
    """Return `Layer`, or one that is computed again in the backward pass, as `remat` says."""
    if config.remat == "none":
        return Layer
    # Inside a scan the compiler cannot merge the recomputation with the first computation, so
    # `prevent_cse` is not needed.
    return nn.remat(Layer, prevent_cse=False, policy=POLICIES[config.remat])
