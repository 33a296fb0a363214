"""What happens inside the attention of one layer: its queries, keys and values, and its scores.

They are computed again from the layer's input with the layer's own projections. So the encoder
keeps nothing for those who do not ask, and its kernels, which never have the scores in memory, stay
as they are.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.attention.attention import Segments
from bertjax.model.attention.rotary import rotations
from bertjax.model.attention.self_attention import SelfAttention, Surroundings
from bertjax.model.functional import Params
from bertjax.model.layers import Norm
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.model.network import Encoded
from bertjax.types import Batch


class Projections(NamedTuple):
    """The projections of a layer's attention, with their heads side by side.

    Keys and values are narrower where several heads share them. Rotary positions are not in them.
    """

    queries_BxLxD: Array
    keys_BxLxM: Array
    values_BxLxM: Array


def projections(
    config: ModelConfig, params: Params, encoded: Encoded, number: int, layout: Layout = ANYWHERE
) -> Projections:
    """Return queries, keys and values of layer `number`, counted from 1.

    `encoded` is the result of `encode` with `keep_layers`.
    """
    layer, normal = _layer_and_input(config, params, encoded, number)
    module = SelfAttention(config, layout)
    projected: Any = module.apply({"params": layer["attention"]}, normal, method="projections")
    return Projections(*projected)


def scores(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    encoded: Encoded,
    number: int,
    layout: Layout = ANYWHERE,
) -> Array:
    """Return the attention scores of layer `number` before the softmax, [B, H, L, L] float32.

    Those of pairs that do not see each other are among them. The other arguments are as in
    `projections`; `batch` is the one that was encoded.
    """
    layer, normal = _layer_and_input(config, params, encoded, number)
    ids = jnp.asarray(batch["input_ids"])
    positions = batch.get("position_ids", jnp.arange(ids.shape[-1])[None, :])
    surroundings = Surroundings(
        # The scores do not depend on the segments.
        Segments(ids, ids),
        rotations(config, jnp.asarray(positions)),
        _relative(config, params["encoder"]),
    )
    module = SelfAttention(config, layout)
    of_pairs: Any = module.apply(
        {"params": layer["attention"]},
        normal,
        surroundings,
        config.is_global(number - 1),
        method="scores",
    )
    return of_pairs


def _layer_and_input(
    config: ModelConfig, params: Params, encoded: Encoded, number: int
) -> tuple[Any, Array]:
    """Return the parameters of a layer, and what its attention reads, [B, L, D]."""
    assert encoded.layers_NxBxLxD is not None
    index = 0 if config.share_layers else number - 1
    layer = jax.tree.map(lambda leaf: leaf[index], params["encoder"]["layers"])
    x = encoded.embedded_BxLxD if number == 1 else encoded.layers_NxBxLxD[number - 2]
    has_norm = config.norm_place != "after" and (number > 1 or config.first_norm)
    if has_norm:
        # A norm without scale and bias has no parameters.
        own = layer.get("attention_layer_norm", {})
        normal: Any = Norm(config).apply({"params": own}, x)
        return layer, normal
    return layer, x


def _relative(config: ModelConfig, encoder: Any) -> Array | None:
    """Return the vectors of relative positions, as the encoder gives them to its layers."""
    if not config.relative_positions:
        return None
    norm, table = encoder["relative_layer_norm"], encoder["relative"]["embedding"]
    vectors: Any = Norm(config, is_affine=True).apply({"params": norm}, table)
    return vectors
