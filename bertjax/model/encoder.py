"""The encoder: embeddings, then layers with stacked parameters.

Layers that are all alike run in one `scan`: the program of one layer is compiled and used for all.
Where global and local layers alternate, the scan's body has one layer of each place in the pattern.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.attention import Segments, Surroundings
from bertjax.model.layer import Kind, Layer, SharedLayer, State, layer_class
from bertjax.model.layer_pattern import Pattern, run_pattern
from bertjax.model.layers import Linear, Norm, dropout, initial
from bertjax.model.layout import HIDDEN, Layout
from bertjax.model.rotary import Rotation, rotation


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalized; `[B, L]` ids to `[B, L, D]`.

    As `config` says, the positions, the token types and the norm may be missing. If
    `embedding_size` is set, the embeddings have this width and are projected to the hidden size
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
        init_words = initial(c, "vocab", "embed")
        # These two have few rows, so they are cut along their width alone.
        init_others = initial(c, None, "embed")
        self.word = table(c.vocab_size, embedding_init=init_words)
        if c.positions == "learned":
            self.position = table(c.max_position_embeddings, embedding_init=init_others)
        if c.type_vocab_size:
            self.token_type = table(c.type_vocab_size, embedding_init=init_others)
        if c.embedding_norm:
            self.layer_norm = Norm(c)
        if c.embedding_size:
            self.projection = Linear(c, (c.embedding_size,), (c.hidden_size,), (None, "embed"))

    def __call__(
        self, input_ids: Array, segment_ids: Array, position_ids: Array, *, deterministic: bool
    ) -> Array:
        c, layout = self.config, self.layout
        # The layout makes the compiler gather the table from the devices before the lookup.
        # Otherwise it would move the whole batch between devices.
        summed = jnp.take(layout(self.word.embedding, "vocab", None), input_ids, axis=0)
        if c.positions == "learned":
            summed = summed + self.position(position_ids + c.position_offset)
        if c.positions == "sinusoidal":
            summed = summed + sinusoids(position_ids + c.position_offset, c.embedding_width)
        if c.type_vocab_size:
            summed = summed + self.token_type(segment_ids)
        summed = layout(summed, *HIDDEN)
        has_dropout = "embeddings" in c.dropout_places and not deterministic
        key = self.make_rng("dropout") if has_dropout else None
        # Norm, then dropout, then the projection: the first two are the original BERT's order
        # (modeling.py, layer_norm_and_dropout), the last is ALBERT's.
        normal = self.layer_norm(summed) if c.embedding_norm else summed.astype(c.dtype)
        embedded = dropout(c, normal, c.hidden_dropout_prob, key, layout, HIDDEN)
        if not c.embedding_size:
            return embedded
        return layout(self.projection(embedded), *HIDDEN)


def sinusoids(positions_BxL: Array, width: int) -> Array:
    """Return the vectors of the positions, float32 [B, L, width] (arXiv 1706.03762, section 3.5).

    Element 2 i is the sine of position / 10000^(2 i / width), element 2 i + 1 its cosine.
    """
    frequencies = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angles = positions_BxL[:, :, None] * jnp.asarray(frequencies, jnp.float32)[None, None, :]
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return pairs.reshape(*positions_BxL.shape, -1)[:, :, :width]


class Encoder(nn.Module):
    """The N layers, with their parameters stacked along a first axis.

    The size of this axis is N, or 1 if the layers share their parameters.
    """

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(
        self,
        x_BxLxD: Array,
        segments: Segments,
        positions_BxL: Array,
        *,
        deterministic: bool,
        keep_layers: bool,
    ) -> tuple[Array, Array | None]:
        c = self.config
        surroundings = Surroundings(segments, self._rotations(positions_BxL), self._relative())
        mix = None
        if c.layer_mix:
            # At first each sublayer's output alone is taken (arXiv 2402.02622, section 3).
            mix = self.param("mix", _last_alone, 2 * c.num_hidden_layers)
        # The parameters are made by the scan, whichever way the layers are run.
        if (c.alternates or c.layer_mix) and not self.is_initializing():
            key = None if deterministic else self.make_rng("dropout")
            pattern = Pattern(c, self.layout, surroundings, mix, key, keep_layers)
            x_BxLxD, kept = run_pattern(pattern, self.variables["params"]["layers"], x_BxLxD)
        else:
            x_BxLxD, kept = self._scan(x_BxLxD, surroundings, deterministic, keep_layers)
        if c.final_norm:
            x_BxLxD = Norm(c, name="final_norm")(x_BxLxD)
            kept = None if kept is None else kept.at[-1].set(x_BxLxD)
        return x_BxLxD, kept

    def _rotations(self, positions_BxL: Array) -> tuple[Rotation, Rotation] | None:
        c = self.config
        if c.positions != "rotary":
            return None
        in_global = rotation(c, positions_BxL, c.rotary_base)
        in_local = rotation(c, positions_BxL, c.rotary_base_local or c.rotary_base)
        return in_global, in_local

    def _relative(self) -> Array | None:
        c = self.config
        if not c.relative_positions:
            return None
        init = initial(c, None, "embed")
        table = nn.Embed(c.relative_positions, c.hidden_size, embedding_init=init, name="relative")
        return Norm(c, is_affine=True, name="relative_layer_norm")(table.embedding)

    def _scan(
        self, x_BxLxD: Array, surroundings: Surroundings, deterministic: bool, keep_layers: bool
    ) -> tuple[Array, Array | None]:
        """Run layers that are all alike, in one scan."""
        c = self.config
        stack = 1 if c.share_layers else c.num_hidden_layers
        scanned = nn.scan(
            SharedLayer if c.share_layers else layer_class(c),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, 0),
            length=stack,
            unroll=min(c.scan_unroll, stack),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        layers = scanned(c, self.layout, deterministic, keep_layers, name="layers")
        is_first = None if c.first_norm else jnp.arange(stack) == 0
        state, kept = layers(State(x_BxLxD), surroundings, Kind(is_first=is_first))
        if c.share_layers and keep_layers:
            kept = kept[0]
        return state.x_BxLxD, kept


def _last_alone(key: Array, count: int) -> Array:
    """Return the initial weights of `layer_mix`, [count, count + 1]; the key is not needed."""
    return jnp.eye(count, count + 1, k=1)
