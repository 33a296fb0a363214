"""A BERT decoder as pure functions of its parameters: BERT with a causal mask, and attention on a
source.

The tree is `embeddings`, `layers` (stacked on a first axis: the encoder's names, `cross_attention`
and `cross_attention_layer_norm`) and `mlm`, whose scores go through the decoder's own word
embedding. Axes are those of `layers.py` and `bertjax.model.functional`.
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
from bertjax.model.encoder import POLICIES, Embeddings
from bertjax.model.functional import Params
from bertjax.model.heads import MlmHead
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.tasks.seq2seq.layers import DecoderLayer, KeysValues, Whole

SHARED = ("attention", "attention_layer_norm", "mlp", "mlp_layer_norm")
"""What a layer has of the encoder's."""


class EncodedSource(NamedTuple):
    """A source as all steps of decoding see it."""

    at: KeysValues
    """[N, B, L, H, K] each."""
    seen_Bx1xL: Array
    """Which ids are no padding, bool."""


def _boxed_init(config: ModelConfig, key: Array) -> Any:
    ids, x = jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2, config.hidden_size))
    table, seen = jnp.zeros((config.vocab_size, config.embedding_width)), jnp.ones((1, 2, 2), bool)
    keys = jax.random.split(key, 3)

    def layer(key: Array) -> Any:
        return DecoderLayer(config, ANYWHERE).init(key, x, x, (seen, seen), deterministic=True)[
            "params"
        ]

    stack = 1 if config.share_layers else config.num_hidden_layers
    return {
        "embeddings": Embeddings(config, ANYWHERE).init(keys[0], ids, ids, ids, deterministic=True)[
            "params"
        ],
        "layers": jax.vmap(layer)(jax.random.split(keys[1], stack)),
        "mlm": MlmHead(config, ANYWHERE).init(keys[2], x, table)["params"],
    }


def init(config: ModelConfig, key: Array) -> Params:
    """A new decoder of the encoder's sizes, drawn as `functional.init` draws; all float32."""
    return nn.unbox(_boxed_init(config, key))


def logical_axes(config: ModelConfig) -> Params:
    """The tree of `init` with a PartitionSpec of logical axis names in each leaf's place."""
    specs = nn.get_partition_spec(jax.eval_shape(lambda: _boxed_init(config, jax.random.key(0))))

    def tree(part: Any, *first: str) -> Any:
        return jax.tree.map(
            lambda s: PartitionSpec(*first, *s),
            part,
            is_leaf=lambda s: isinstance(s, PartitionSpec),
        )

    return {
        name: tree(part, "layers") if name == "layers" else tree(part)
        for name, part in specs.items()
    }


def warm_start(config: ModelConfig, new_head: Params, donor_params: Params) -> Params:
    """The decoder `new_head` with all that a donor BERT's `params` have of it; cross-attention
    stays new.

    The donor's sizes must be those of `config`. Its masked-word head is taken where it has one.
    Nothing is shared with the donor, which may be the encoder: a step that gives its state's memory
    back cannot give one array back twice. Raises `UserError` naming the first tensor whose shape
    differs.
    """
    stack = donor_params["encoder"]["layers"]
    warm: dict[str, Any] = {
        "embeddings": donor_params["embeddings"],
        "layers": {name: stack[name] for name in SHARED},
    }
    warm |= {"mlm": donor_params["mlm"]} if "mlm" in donor_params else {}
    new, old = flatten_dict(new_head, sep="/"), flatten_dict(warm, sep="/")
    for name in new:
        cold = "cross_attention" in name or (name.startswith("mlm/") and "mlm" not in warm)
        check(
            cold or name in old,
            where=name,
            found="no such tensor in the checkpoint",
            expected=f"one of shape {new[name].shape}",
        )
    for name, tensor in old.items():
        check(
            name in new,
            where=name,
            found="this tensor in the checkpoint",
            expected="none, by model",
        )
        found, expected = np.shape(tensor), new[name].shape
        check(
            found == expected,
            where=name,
            found=f"shape {found} in the checkpoint",
            expected=f"the decoder's {expected}",
        )
    return unflatten_dict(
        new | {name: jnp.array(tensor, jnp.float32) for name, tensor in old.items()}, sep="/"
    )


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
    """Scores [B, T, V] float32 of the id after each place of `target_ids` [B, T] int32; with
    dropout if there is a key.

    `memory` is the encoder's output and `source_mask` [B, L] 1 at its real ids. No score depends on
    a later id, so padding at a target's end needs no mask. T is at most `config.max_length`.
    """
    length, layer = target_ids.shape[1], DecoderLayer(config, layout)
    keys = None if key is None else jax.random.split(key, config.num_hidden_layers + 1)
    seen = jnp.tril(jnp.ones((length, length), bool))[None], (source_mask > 0)[:, None, :]
    place_1xT = jnp.arange(length)[None, :]

    def apply(x_BxTxD: Array, scanned: tuple[Any, Array | None]) -> tuple[Array, None]:
        params, own = scanned
        return _apply(
            layer, params, x_BxTxD, memory_BxLxD, seen, deterministic=key is None, key=own
        ), None

    if config.remat != "none":
        apply = jax.checkpoint(apply, prevent_cse=False, policy=POLICIES[config.remat])
    x_BxTxD = _embed(config, head, target_ids, place_1xT, None if keys is None else keys[0], layout)
    scanned = (_layers(config, head), None if keys is None else keys[1:])
    x_BxTxD, _ = jax.lax.scan(
        apply, x_BxTxD, scanned, unroll=min(config.scan_unroll, config.num_hidden_layers)
    )
    return _scores(config, head, x_BxTxD, layout)


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
    """What `step` needs: the source, and an empty cache [N, B, R, T, H, K] for targets of `length`
    ids.
    """
    layer = DecoderLayer(config, Whole(layout))
    one = lambda _, params: (None, _apply(layer, params, memory_BxLxD, method="source"))  # noqa: E731
    at: KeysValues = jax.lax.scan(one, None, _layers(config, head))[1]
    layers, rows, _, *heads = at.keys.shape
    empty = jnp.zeros((layers, rows, beams, length, *heads), at.keys.dtype)
    return EncodedSource(at, (source_mask > 0)[:, None, :]), with_shardings(
        KeysValues(empty, empty), layout
    )


def step(
    config: ModelConfig,
    head: Params,
    source: EncodedSource,
    cache: KeysValues,
    ids_BxR: Array,
    place: Array,
    *,
    layout: Layout = ANYWHERE,
) -> tuple[Array, KeysValues]:
    """(scores [B, R, V] float32 of the next id, the cache with this place): `logits` at `place`
    alone, int32 scalar.
    """
    layer = DecoderLayer(config, Whole(layout))

    def apply(x_BxRxD: Array, scanned: Any) -> tuple[Array, KeysValues]:
        params, before, at = scanned
        return _apply(layer, params, x_BxRxD, before, at, source.seen_Bx1xL, place, method="step")

    x_BxRxD = _embed(config, head, ids_BxR, place.reshape(1, 1), None, Whole(layout))
    x_BxRxD, cache = jax.lax.scan(apply, x_BxRxD, (_layers(config, head), cache, source.at))
    return _scores(config, head, x_BxRxD, Whole(layout)), with_shardings(cache, layout)


def with_shardings(cache: KeysValues, layout: Layout) -> KeysValues:
    """The cache on a mesh: rows and heads cut, each device having its rows' every place."""
    return KeysValues(
        *(layout(part, "layers", "batch", None, None, "heads", None) for part in cache)
    )


def _apply(
    module: nn.Module, params: Params, *args: Any, key: Array | None = None, **found: Any
) -> Any:
    return module.apply(
        {"params": params}, *args, rngs=None if key is None else {"dropout": key}, **found
    )


def _embed(
    config: ModelConfig,
    head: Params,
    ids: Array,
    positions: Array,
    key: Array | None,
    layout: Layout,
) -> Array:
    args = (ids, jnp.zeros_like(ids), positions)
    return _apply(
        Embeddings(config, layout), head["embeddings"], *args, deterministic=key is None, key=key
    )


def _layers(config: ModelConfig, head: Params) -> Any:
    """The layers' parameters with a first axis of N, also where the layers share them."""
    number = config.num_hidden_layers
    return jax.tree.map(lambda p: jnp.broadcast_to(p, (number, *p.shape[1:])), head["layers"])


def _scores(config: ModelConfig, head: Params, x: Array, layout: Layout) -> Array:
    return _apply(MlmHead(config, layout), head["mlm"], x, head["embeddings"]["word"]["embedding"])
