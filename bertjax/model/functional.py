"""The model as pure functions of (config, params, arrays): what other JAX code imports.

No function keeps state; all work under `jit` (the configuration is hashable: mark it
static), `grad` and `vmap`. Legend of the axes, here and in the package:

    B batch   L length of a row   D model width   E width of the embeddings   H heads   K width of a head
    F feed-forward width   V vocabulary   P predicted positions   N layers   S inputs in a packed row

`params` is a plain nested dict of float32 arrays; `docs/parameters.md` lists its names
and shapes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.model.attention import Segments
from bertjax.model.cross_entropy import CrossEntropy
from bertjax.model.encoder import Embeddings, Encoder
from bertjax.model.heads import MlmHead
from bertjax.model.layers import Linear
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.types import Batch

Params = Mapping[str, Any]
TASKS = "tasks"  # the group of parameters that tasks' heads are in
# among restored groups those of the model that a decoder begins with, where it is another
DECODER_GROUPS = "decoder"


class Encoded(NamedTuple):
    """What `encode` gives."""

    hidden_BxLxD: Array
    """The last layer's output, in `config.dtype`."""
    layers_NxBxLxD: Array | None
    """Every layer's output, first layer first, where asked for; the last equals `hidden_BxLxD`."""
    embedded_BxLxD: Array
    """What the first layer reads: the embeddings after their layer norm and dropout."""


class _Bert(nn.Module):
    config: ModelConfig
    layout: Layout = ANYWHERE

    def setup(self) -> None:
        c = self.config
        self.embeddings = Embeddings(c, self.layout)
        self.encoder = Encoder(c, self.layout)
        if "pooler" in c.heads:
            self.pooler = Linear(c, (c.hidden_size,), (c.hidden_size,), ("embed", None))
        if "mlm" in c.heads:
            self.mlm = MlmHead(c, self.layout)
        if "nsp" in c.heads:
            self.nsp = Linear(c, (c.hidden_size,), (2,), ("embed", None))

    def encode(self, batch: Batch, *, deterministic: bool, keep_layers: bool) -> Encoded:
        ids = jnp.asarray(batch["input_ids"])
        positions = (
            batch["position_ids"] if "position_ids" in batch else jnp.arange(ids.shape[-1])[None, :]
        )
        segments = batch["segment_ids"] if "segment_ids" in batch else jnp.zeros_like(ids)
        seen = batch["input_mask"] if "input_mask" in batch else jnp.ones_like(ids)
        embedded = self.embeddings(ids, segments, positions, deterministic=deterministic)
        packs = jnp.asarray(batch["pack_ids"]) if "pack_ids" in batch else jnp.ones_like(ids)
        segments = Segments(
            packs, jnp.where(jnp.asarray(seen) > 0, packs, -1)
        )  # no query is of segment -1
        hidden, layers = self.encoder(
            embedded, segments, deterministic=deterministic, keep_layers=keep_layers
        )
        return Encoded(hidden, layers, embedded)

    def pool(self, hidden_BxLxD: Array, positions_BxS: Array | None) -> Array:
        if positions_BxS is None:
            return jnp.tanh(self.pooler(hidden_BxLxD[:, 0]))
        return jnp.tanh(self.pooler(_at(hidden_BxLxD, positions_BxS)))

    def mlm_logits(self, hidden_BxLxD: Array, positions_BxP: Array | None) -> Array:
        hidden = hidden_BxLxD if positions_BxP is None else _at(hidden_BxLxD, positions_BxP)
        return self.mlm(hidden, self.embeddings.word.embedding)

    def mlm_cross_entropy(
        self, hidden_BxLxD: Array, positions_BxP: Array, labels_BxP: Array, weights_BxP: Array
    ) -> CrossEntropy:
        hidden, table = _at(hidden_BxLxD, positions_BxP), self.embeddings.word.embedding
        return self.mlm.cross_entropy(hidden, table, labels_BxP, weights_BxP)

    def nsp_logits(self, pooled: Array) -> Array:
        return self.nsp(pooled).astype(jnp.float32)

    def all(self, batch: Batch) -> None:
        heads = self.config.heads
        hidden = self.encode(batch, deterministic=True, keep_layers=False).hidden_BxLxD
        if "mlm" in heads:
            self.mlm_logits(hidden, None)
        if "pooler" in heads:
            pooled = self.pool(hidden, None)
            if "nsp" in heads:
                self.nsp_logits(pooled)


def _at(hidden_BxLxD: Array, positions_BxP: Array) -> Array:
    # Not a flattened gather: that one makes every device fetch the whole batch.
    return jnp.take_along_axis(hidden_BxLxD, jnp.asarray(positions_BxP)[:, :, None], axis=1)


def _boxed_init(config: ModelConfig, key: Array) -> Any:
    row = jnp.zeros((1, 8), jnp.int32)
    return _Bert(config).init(key, {"input_ids": row}, method="all")["params"]


def init(config: ModelConfig, key: Array) -> Params:
    """New parameters: truncated normal of `config.initializer_range`, zero biases, unit layer
    norms.

    `key` is a `jax.random.key`. All float32.

    >>> import bertjax, jax
    >>> config = bertjax.ModelConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    >>> params = bertjax.init(config, jax.random.key(0))
    >>> sorted(params)
    ['embeddings', 'encoder', 'mlm', 'nsp', 'pooler']
    """
    return nn.unbox(_boxed_init(config, key))


def shapes(config: ModelConfig) -> Any:
    """The tree of `params` with a `jax.ShapeDtypeStruct` in each leaf's place."""
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


def logical_axes(config: ModelConfig) -> Any:
    """The tree of `params` with a PartitionSpec of logical axis names in each leaf's place."""
    boxed = jax.eval_shape(lambda: _boxed_init(config, jax.random.key(0)))
    specs = nn.get_partition_spec(boxed)
    return jax.tree.map(
        lambda spec: PartitionSpec(*spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec)
    )


def encode(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    *,
    key: Array | None = None,
    keep_layers: bool = False,
    layout: Layout = ANYWHERE,
) -> Encoded:
    """Hidden states of each row; with dropout if a `key` is given, else deterministic.

    `batch` holds `input_ids` [B, L] int32 in 0..V-1 and, where wanted, `input_mask` [B, L] (1 real,
    0 padding; default all 1), `segment_ids` [B, L] (token types; default 0) and `position_ids` [B
    or 1, L] (default 0..L-1). In packed rows `pack_ids` [B, L] (1, 2, …; 0 padding) says which
    input each id is of: no input sees another. L is at most `config.max_length`. An id out of range
    is not noticed here: gathers under jit clamp or give NaN. `layout` lays the activations out on a
    mesh.

    >>> import bertjax, numpy as np
    >>> model = bertjax.load_model("runs/tiny")
    >>> batch = {"input_ids": np.array([[2, 7, 8, 3]], np.int32)}
    >>> bertjax.encode(model.config.model, model.params, batch).hidden_BxLxD.shape
    (1, 4, 32)
    """
    rngs = None if key is None else {"dropout": key}
    found = {"deterministic": key is None, "keep_layers": keep_layers, "rngs": rngs}
    return _apply(config, params, "encode", batch, layout=layout, **found)


def pool(
    config: ModelConfig, params: Params, hidden_BxLxD: Array, positions_BxS: ArrayLike | None = None
) -> Array:
    """The sentence vector [B, D]: tanh of a linear layer on the first token's hidden state.

    With `positions_BxS`, of the tokens at these places instead: [B, S, D]. Raises `UserError`, as
    the other heads do, where the model has no such head.

    >>> import bertjax, numpy as np
    >>> model = bertjax.load_model("runs/tiny")
    >>> hidden = np.zeros((1, 4, 32), np.float32)
    >>> bertjax.pool(model.config.model, model.params, hidden).shape
    (1, 32)
    """
    _need_head(config, "pooler")
    return _apply(config, params, "pool", hidden_BxLxD, positions_BxS)


def mlm_logits(
    config: ModelConfig,
    params: Params,
    hidden_BxLxD: Array,
    positions_BxP: ArrayLike | None = None,
    *,
    layout: Layout = ANYWHERE,
) -> Array:
    """Scores over the vocabulary, [B, P, V] float32, at the given positions; at all L without them.

    >>> import bertjax, numpy as np
    >>> model = bertjax.load_model("runs/tiny")
    >>> hidden, positions = np.zeros((1, 4, 32), np.float32), np.array([[1, 2]])
    >>> bertjax.mlm_logits(model.config.model, model.params, hidden, positions).shape
    (1, 2, 120)
    """
    _need_head(config, "mlm")
    return _apply(config, params, "mlm_logits", hidden_BxLxD, positions_BxP, layout=layout)


def mlm_cross_entropy(
    config: ModelConfig,
    params: Params,
    hidden_BxLxD: Array,
    positions_BxP: ArrayLike,
    labels_BxP: ArrayLike,
    weights_BxP: ArrayLike,
    *,
    layout: Layout = ANYWHERE,
) -> CrossEntropy:
    """Sums of the cross-entropy of `mlm_logits` under `labels` in 0..V-1, each entry with its
    weight, in nats.

    Where `layout` is that of one CPU or GPU, scores are not kept: see `product_cross_entropy`.
    """
    _need_head(config, "mlm")
    found = (hidden_BxLxD, positions_BxP, labels_BxP, weights_BxP)
    return _apply(config, params, "mlm_cross_entropy", *map(jnp.asarray, found), layout=layout)


def nsp_logits(config: ModelConfig, params: Params, pooled: Array) -> Array:
    """Scores [B, 2] or [B, S, 2] float32 of (B follows A, B is random), as in the original BERT,
    from `pool`.

    >>> import bertjax, numpy as np
    >>> model = bertjax.load_model("runs/tiny")
    >>> pooled = np.zeros((1, 32), np.float32)
    >>> bertjax.nsp_logits(model.config.model, model.params, pooled).shape
    (1, 2)
    """
    _need_head(config, "nsp")
    return _apply(config, params, "nsp_logits", pooled)


def _need_head(config: ModelConfig, head: str) -> None:
    check(
        head in config.heads,
        where="model.heads",
        found=", ".join(config.heads) or "none",
        expected=head,
    )


def _apply(
    config: ModelConfig,
    params: Params,
    method: str,
    *args: Any,
    layout: Layout = ANYWHERE,
    **kwargs: Any,
) -> Any:
    return _Bert(config, layout).apply({"params": params}, *args, method=method, **kwargs)
