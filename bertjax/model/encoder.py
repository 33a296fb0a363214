"""The encoder: layers with stacked parameters.

Layers that are all alike run in one `scan`: the program of one layer is compiled and used for all.
Where global and local layers alternate, the scan's body has one layer of each place in the pattern.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.attention.attention import Segments
from bertjax.model.attention.rotary import Rotation, rotations
from bertjax.model.attention.self_attention import Surroundings
from bertjax.model.kernels import selection as kernels
from bertjax.model.kernels.tpu_long_attention import packed_rotation
from bertjax.model.layer import Kind, SharedLayer, State, layer_class
from bertjax.model.layer_pattern import Pattern, run_pattern
from bertjax.model.layers import Norm, initial
from bertjax.model.layout import Layout
from bertjax.model.residual_norm import PreNorm


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
        last_BxL: Array | None = None,
    ) -> tuple[Array, Array | None]:
        c = self.config
        surroundings = Surroundings(
            segments, self._rotations(positions_BxL), self._relative(), last_BxL
        )
        mix = None
        if c.layer_mix:
            # At first each sublayer's output alone is taken (arXiv 2402.02622, section 3).
            init: Any = nn.with_logical_partitioning(_last_alone, (None, None))
            mix = self.param("mix", init, 2 * c.num_hidden_layers)
        # The parameters are made by the scan, whichever way the layers are run.
        if (c.alternates or c.layer_mix) and not self.is_initializing():
            key = None if deterministic else self.make_rng("dropout")
            pattern = Pattern(c, self.layout, surroundings, mix, key, keep_layers)
            x_BxLxD, kept = run_pattern(pattern, self.variables["params"]["layers"], x_BxLxD)
        else:
            x_BxLxD, kept = self._scan(x_BxLxD, surroundings, deterministic, keep_layers)
        if c.final_norm:
            x_BxLxD = PreNorm(c, self.layout, name="final_norm")(x_BxLxD).normal
            kept = None if kept is None else kept.at[-1].set(x_BxLxD)
        return x_BxLxD, kept

    def _rotations(self, positions_BxL: Array) -> tuple[Rotation, Rotation] | None:
        of_kinds, length = rotations(self.config, positions_BxL), positions_BxL.shape[1]
        if of_kinds is None:
            return None
        in_global, in_local = of_kinds
        return (
            self._packed(in_global, length, is_global=True),
            self._packed(in_local, length, is_global=False),
        )

    def _packed(self, turn: Rotation, length: int, *, is_global: bool) -> Rotation:
        c = self.config
        if not kernels.long_attention(c, length, is_global, self.layout):
            return turn
        return turn._replace(packed=packed_rotation(turn.cosines, turn.sines, c.rotary_pairs))

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
        layers = scanned(c, self.layout, deterministic, keep_layers, c.is_global(0), name="layers")
        is_first = None if c.first_norm else jnp.arange(stack) == 0
        state, kept = layers(State(x_BxLxD), surroundings, Kind(is_first=is_first))
        if c.share_layers and keep_layers:
            kept = kept[0]
        return state.x_BxLxD, kept


def _last_alone(key: Array, count: int) -> Array:
    """Return the initial weights of `layer_mix`, [count, count + 1]; the key is not needed."""
    return jnp.eye(count, count + 1, k=1)
