"""A BERT decoder as pure functions: BERT with a causal mask and with cross-attention on a source.

The parameters have three groups: `embeddings`, `layers` and `mlm`. The tensors of all `layers` are
stacked on a first axis; their names are those of the encoder, and `cross_attention` and
`cross_attention_layer_norm`. The logits of `mlm` are computed with the decoder's own word
embedding. `layers.py` and `bertjax.model.functional` explain the names of axes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.sharding import PartitionSpec

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.model.embeddings import Embeddings
from bertjax.model.functional import Params
from bertjax.model.heads.mlm_head import MlmHead
from bertjax.model.layer import POLICIES
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.tasks.seq2seq.layers import DecoderLayer, KeysValues, UncutRows

SHARED = ("attention", "attention_layer_norm", "mlp", "mlp_layer_norm")
"""The parts of a decoder layer that an encoder layer also has."""


class EncodedSource(NamedTuple):
    """The data of a source that every decoding step needs."""

    keys_values: KeysValues
    """Keys and values of the source for the cross-attention of all layers, [N, B, L, H, K] each."""
    seen_Bx1xL: Array
    """bool, true for ids that are not padding."""


def _boxed_init(config: ModelConfig, key: Array) -> Any:
    # Small inputs: the parameters do not depend on the sizes of a batch.
    ids, x = jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2, config.hidden_size))
    table, seen = jnp.zeros((config.vocab_size, config.embedding_width)), jnp.ones((1, 2, 2), bool)
    keys = jax.random.split(key, 3)

    def layer(key: Array) -> Any:
        module = DecoderLayer(config, ANYWHERE)
        return module.init(key, x, x, (seen, seen), deterministic=True)["params"]

    embeddings = Embeddings(config, ANYWHERE).init(keys[0], ids, ids, ids, deterministic=True)
    stack = 1 if config.share_layers else config.num_hidden_layers
    return {
        "embeddings": embeddings["params"],
        "layers": jax.vmap(layer)(jax.random.split(keys[1], stack)),
        "mlm": MlmHead(config, ANYWHERE).init(keys[2], x, table)["params"],
    }


def init(config: ModelConfig, key: Array) -> Params:
    """Return new float32 parameters of a decoder with the encoder's sizes, as `functional.init`."""
    return nn.unbox(_boxed_init(config, key))


def logical_axes(config: ModelConfig) -> Params:
    """Return the tree of `init` with a PartitionSpec of logical axis names for each leaf."""
    # Shapes alone: no parameters are computed.
    specs = nn.get_partition_spec(jax.eval_shape(lambda: _boxed_init(config, jax.random.key(0))))
    # `jax.vmap` of `init` added the first axis, that of the layers; it has no name yet.
    return {**specs, "layers": jax.tree.map(_of_layers, specs["layers"], is_leaf=_is_spec)}


def _is_spec(node: Any) -> bool:
    return isinstance(node, PartitionSpec)


def _of_layers(spec: PartitionSpec) -> PartitionSpec:
    return PartitionSpec("layers", *spec)


def warm_start(config: ModelConfig, new_head: Params, donor_params: Params) -> Params:
    """Return the decoder `new_head` with the tensors of a donor BERT; cross-attention stays new.

    The donor's sizes must be those of `config`. If the donor has a masked-word head, it is also
    used. The tensors are copied. Raises `UserError` with the first tensor whose shape differs.
    """
    stack = donor_params["encoder"]["layers"]
    donated: dict[str, Any] = {
        "embeddings": donor_params["embeddings"],
        "layers": {name: stack[name] for name in SHARED},
    }
    if "mlm" in donor_params:
        donated["mlm"] = donor_params["mlm"]
    new, old = flatten_dict(new_head, sep="/"), flatten_dict(donated, sep="/")
    for name in new:
        stays_new = "cross_attention" in name or (name.startswith("mlm/") and "mlm" not in donated)
        check(
            stays_new or name in old,
            where=name,
            found="no such tensor in the checkpoint",
            expected=f"one of shape {new[name].shape}",
        )
    # The other way round too: `new | copies` would take in a tensor that the decoder lacks.
    for name, tensor in old.items():
        check(
            name in new,
            where=name,
            found="this tensor in the checkpoint",
            expected="none, by model",
        )
        shape, expected = np.shape(tensor), new[name].shape
        check(
            shape == expected,
            where=name,
            found=f"shape {shape} in the checkpoint",
            expected=f"the decoder's {expected}",
        )
    # The tensors are copied: the donor may be the encoder itself, and a train step cannot donate
    # the same buffer twice.
    copies = {name: jnp.array(tensor, jnp.float32) for name, tensor in old.items()}
    return unflatten_dict(new | copies, sep="/")


def logits(
    config: ModelConfig,
    head: Params,
    memory_BxLxD: Array,
    source_mask: Array,
    target_ids: Array,
    *,
    key: Array | None = None,
    layout: Layout = ANYWHERE,
) -> Array:
    """Return the logits of the id after each of `target_ids` (int32 [B, T]), float32 [B, T, V].

    If a `key` is given, dropout is on. `memory` is the encoder's output; `source_mask` [B, L] is 1
    at ids that are not padding. No logit depends on a later id, so the padding at a target's end
    needs no mask. T must not be above `config.max_length`.
    """
    length, layer = target_ids.shape[1], DecoderLayer(config, layout)
    keys = None if key is None else jax.random.split(key, config.num_hidden_layers + 1)
    causal_1xTxT = jnp.tril(jnp.ones((length, length), bool))[None]
    seen = causal_1xTxT, (source_mask > 0)[:, None, :]
    position_1xT = jnp.arange(length)[None, :]

    def apply(x_BxTxD: Array, scanned: tuple[Any, Array | None]) -> tuple[Array, None]:
        params, layer_key = scanned
        x_BxTxD = _apply(
            layer,
            params,
            x_BxTxD,
            memory_BxLxD,
            seen,
            deterministic=layer_key is None,
            key=layer_key,
        )
        return x_BxTxD, None

    if config.remat != "none":
        # `prevent_cse` keeps XLA from merging the two computations. Inside a scan XLA cannot merge
        # them anyway.
        apply = jax.checkpoint(apply, prevent_cse=False, policy=POLICIES[config.remat])
    embedding_key = None if keys is None else keys[0]
    layer_keys = None if keys is None else keys[1:]
    x_BxTxD = _embed(config, head, target_ids, position_1xT, embedding_key, layout)
    x_BxTxD, _ = jax.lax.scan(
        apply,
        x_BxTxD,
        (_layers(config, head), layer_keys),
        unroll=min(config.scan_unroll, config.num_hidden_layers),
    )
    return _vocabulary_logits(config, head, x_BxTxD, layout)


def start(
    config: ModelConfig,
    head: Params,
    memory_BxLxD: Array,
    source_mask: Array,
    *,
    beams: int,
    length: int,
    layout: Layout = ANYWHERE,
) -> tuple[EncodedSource, KeysValues]:
    """Return what `step` needs: the source, and an empty cache for targets of `length` ids.

    The cache is [N, B, R, T, H, K].
    """
    layer = DecoderLayer(config, UncutRows(layout))

    def apply(_: None, params: Params) -> tuple[None, KeysValues]:
        return None, _apply(layer, params, memory_BxLxD, method="source")

    # Once for a source: they are the same at each position of the target.
    keys_values: KeysValues = jax.lax.scan(apply, None, _layers(config, head))[1]
    layers, rows, _, *heads = keys_values.keys.shape
    # As long as the longest target: under `jit` an array cannot grow.
    empty = jnp.zeros((layers, rows, beams, length, *heads), keys_values.keys.dtype)
    source = EncodedSource(keys_values, (source_mask > 0)[:, None, :])
    return source, laid_out(KeysValues(empty, empty), layout)


def step(
    config: ModelConfig,
    head: Params,
    source: EncodedSource,
    cache: KeysValues,
    ids_BxR: Array,
    position: Array,
    *,
    layout: Layout = ANYWHERE,
) -> tuple[Array, KeysValues]:
    """Return the logits of the next id, float32 [B, R, V], and the cache with this position.

    The result equals that of `logits` at `position`, an int32 scalar.
    """
    layer = DecoderLayer(config, UncutRows(layout))

    def apply(x_BxRxD: Array, scanned: Any) -> tuple[Array, KeysValues]:
        params, before, keys_values = scanned
        seen = source.seen_Bx1xL
        return _apply(layer, params, x_BxRxD, before, keys_values, seen, position, method="step")

    x_BxRxD = _embed(config, head, ids_BxR, position.reshape(1, 1), None, UncutRows(layout))
    scanned = (_layers(config, head), cache, source.keys_values)
    x_BxRxD, cache = jax.lax.scan(apply, x_BxRxD, scanned)
    logits_BxRxV = _vocabulary_logits(config, head, x_BxRxD, UncutRows(layout))
    return logits_BxRxV, laid_out(cache, layout)


def laid_out(cache: KeysValues, layout: Layout) -> KeysValues:
    """Return the cache sharded over rows and heads; each device has all positions of its rows."""
    names = ("layers", "batch", None, None, "heads", None)
    return KeysValues(layout(cache.keys, *names), layout(cache.values, *names))


def _apply(
    module: nn.Module, params: Params, *args: Any, key: Array | None = None, **options: Any
) -> Any:
    rngs = None if key is None else {"dropout": key}
    return module.apply({"params": params}, *args, rngs=rngs, **options)


def _embed(
    config: ModelConfig,
    head: Params,
    ids: Array,
    positions: Array,
    key: Array | None,
    layout: Layout,
) -> Array:
    # A target is one text, so all of it has token type 0.
    module, segment_ids = Embeddings(config, layout), jnp.zeros_like(ids)
    return _apply(
        module,
        head["embeddings"],
        ids,
        segment_ids,
        positions,
        deterministic=key is None,
        key=key,
    )


def _layers(config: ModelConfig, head: Params) -> Any:
    """Return the layers' parameters with a first axis of size N, even if all layers share them."""
    number = config.num_hidden_layers
    return jax.tree.map(lambda p: jnp.broadcast_to(p, (number, *p.shape[1:])), head["layers"])


def _vocabulary_logits(config: ModelConfig, head: Params, x: Array, layout: Layout) -> Array:
    return _apply(MlmHead(config, layout), head["mlm"], x, head["embeddings"]["word"]["embedding"])
