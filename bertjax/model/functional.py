"""The model as pure functions of (config, params, arrays), for use in other JAX code.

No function keeps state. All can be used with `jit`, `grad` and `vmap`; under `jit` the
configuration must be a static argument (it is hashable). The package uses these letters for axes:

    B batch                 L length of a row        P predicted positions
    D hidden size           E width of the embeddings
    F feed-forward size     H heads                  K width of a head
    N layers                V vocabulary             S inputs in a packed row

`params` is a plain nested dict of float32 arrays; `docs/parameters.md` lists its names and shapes.
Before arrays are combined, they are given equal ranks explicitly, as in `bias[None, :]`. The tests
forbid implicit rank promotion in JAX, because it can hide mistakes with axes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.model.heads.cross_entropy import CrossEntropy
from bertjax.model.initial_scales import scaled
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.model.network import Encoded, Network
from bertjax.types import Batch

Params = Mapping[str, Any]
"""A nested dict of arrays."""
LAYERS = "encoder/layers/"  # begins the paths of parameters that are stacked over layers
TASKS = "tasks"  # parameter group that holds the heads of fine-tuning tasks
# Among the parameter groups restored at the start of a run: the name of the group that holds the
# parameters of the model from which a decoder starts (`finetune.decoder_from`).
DECODER_GROUPS = "decoder"
# Among the parameters that an objective of distillation reads: the group with the teacher's.
TEACHER = "teacher"
DISTILLATION = "distillation"  # parameter group of what only the terms of distillation read
GENERATOR = "generator"  # parameter group of what only the generator of replaced tokens has
BESIDE_MODEL = (TASKS, DISTILLATION, GENERATOR)
"""Groups that a checkpoint may have beside those of its model."""


def _boxed_init(config: ModelConfig, key: Array) -> Any:
    """Return new parameters, each in a box with the logical names of its axes."""
    row = jnp.zeros((1, 8), jnp.int32)  # any shape will do: no parameter's shape depends on it
    return Network(config).init(key, {"input_ids": row}, method="all")["params"]


def init(config: ModelConfig, key: Array) -> Params:
    """Return new parameters, float32.

    Kernels and embeddings are drawn as `config.initializer`, `initializer_range` and `scaled_init`
    say. Biases are 0 and the scales of norms are 1. `key` is a `jax.random.key`.

    >>> import bertjax, jax
    >>> config = bertjax.ModelConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    >>> params = bertjax.init(config, jax.random.key(0))
    >>> sorted(params)
    ['embeddings', 'encoder', 'mlm', 'nsp', 'pooler']
    """
    return scaled(config, nn.unbox(_boxed_init(config, key)))


def shapes(config: ModelConfig) -> Any:
    """Return the tree of `params` with a `jax.ShapeDtypeStruct` at each leaf."""
    # Only traced: a model that does not fit this machine has shapes too.
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


def logical_axes(config: ModelConfig) -> Any:
    """Return the tree of `params` with a PartitionSpec of logical axis names at each leaf."""
    boxed = jax.eval_shape(lambda: _boxed_init(config, jax.random.key(0)))

    def is_spec(node: Any) -> bool:
        return isinstance(node, PartitionSpec)

    # Flax returns instances of a subclass; plain specs compare and print like all others.
    specs = nn.get_partition_spec(boxed)
    return jax.tree.map(lambda spec: PartitionSpec(*spec), specs, is_leaf=is_spec)


def encode(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    *,
    key: Array | None = None,
    keep_layers: bool = False,
    layout: Layout = ANYWHERE,
) -> Encoded:
    """Return the hidden states of each row; with dropout if a `key` is given.

    `batch` holds `input_ids` [B, L] int32 in 0..V-1 and, if wanted, `input_mask` [B, L] (1 real, 0
    padding; default all 1), `segment_ids` [B, L] (token types; default 0) and `position_ids` [B or
    1, L] (default 0..L-1). In packed rows `pack_ids` [B, L] has the number of the input that each
    id belongs to (1, 2, …; 0 padding); ids of different inputs do not attend to each other. Rows
    with a 1 in `causal` [B, 1] are causal: no id attends to those after it (not with kernels).
    Raises `UserError` if L is more than `config.max_length` and there are no `position_ids`. An id
    or a position out of range raises no error: under jit, a gather clamps it or gives NaN. `layout`
    shards the activations over a mesh.

    >>> import bertjax, numpy as np
    >>> model = bertjax.load_model("runs/tiny")
    >>> batch = {"input_ids": np.array([[2, 7, 8, 3]], np.int32)}
    >>> bertjax.encode(model.config.model, model.params, batch).hidden_BxLxD.shape
    (1, 4, 32)
    """
    if "position_ids" not in batch:
        length = jnp.shape(batch["input_ids"])[-1]
        check(
            # JAX raises nothing for a position outside of the table: its vector would be NaN. In an
            # exported program the length may be a symbol.
            not isinstance(length, int) or length <= config.max_length,
            where="input_ids",
            found=f"rows of {length} ids",
            expected=f"at most {config.max_length}, the model's positions",
        )
    return _apply(
        config,
        params,
        "encode",
        batch,
        layout=layout,
        deterministic=key is None,
        keep_layers=keep_layers,
        rngs=None if key is None else {"dropout": key},
    )


def pool(
    config: ModelConfig,
    params: Params,
    hidden_BxLxD: Array,
    positions_BxS: ArrayLike | None = None,
    *,
    input_mask: ArrayLike | None = None,
) -> Array:
    """Return the sentence vector [B, D]: the pooler's function of one hidden state of each row.

    This is the first token's state, or the mean of all, as `config.pooling` says; `input_mask`
    [B, L] is 0 at padding, which the mean leaves out. With `positions_BxS`, the hidden states at
    these positions are used instead, and the result is [B, S, D]. In BERT the function is the tanh
    of a linear layer. Raises `UserError` if the model has no pooler.

    >>> import bertjax, numpy as np
    >>> model = bertjax.load_model("runs/tiny")
    >>> hidden = np.zeros((1, 4, 32), np.float32)
    >>> bertjax.pool(model.config.model, model.params, hidden).shape
    (1, 32)
    """
    _need_head(config, "pooler")
    return _apply(config, params, "pool", hidden_BxLxD, positions_BxS, input_mask)


def pool_tokens(config: ModelConfig, params: Params, hidden_BxLxD: Array) -> Array:
    """Return what heads of tasks on tokens read, [B, L, D].

    It is the pooler's function of each hidden state if `config.token_pooler` is set, and the hidden
    states otherwise. Raises `UserError` if the model has no pooler that it needs.
    """
    if not config.token_pooler:
        return hidden_BxLxD
    _need_head(config, "pooler")
    return _apply(config, params, "pool_tokens", hidden_BxLxD)


def mlm_logits(
    config: ModelConfig,
    params: Params,
    hidden_BxLxD: Array,
    positions_BxP: ArrayLike | None = None,
    *,
    layout: Layout = ANYWHERE,
) -> Array:
    """Return logits over the vocabulary, [B, P, V] float32, at the given positions.

    Without `positions_BxP`, the result has logits for all L positions. Raises `UserError` if the
    model has no masked-word head.

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
    """Return the weighted sums of the cross-entropy of `mlm_logits`, in nats.

    `labels_BxP` are in 0..V-1. If `layout` is for a single CPU or GPU, or for TPUs with kernels,
    the logits are not kept in memory (see `product_cross_entropy` and `fused_cross_entropy`).
    Raises `UserError` if the model has no masked-word head.
    """
    _need_head(config, "mlm")
    return _apply(
        config,
        params,
        "mlm_cross_entropy",
        jnp.asarray(hidden_BxLxD),
        jnp.asarray(positions_BxP),
        jnp.asarray(labels_BxP),
        jnp.asarray(weights_BxP),
        layout=layout,
    )


def nsp_logits(config: ModelConfig, params: Params, pooled: Array) -> Array:
    """Return logits [B, 2] or [B, S, 2] float32 for (B follows A, B is random), in BERT's order.

    `pooled` is the result of `pool`. Raises `UserError` if the model has no next-sentence head.

    >>> import bertjax, numpy as np
    >>> model = bertjax.load_model("runs/tiny")
    >>> pooled = np.zeros((1, 32), np.float32)
    >>> bertjax.nsp_logits(model.config.model, model.params, pooled).shape
    (1, 2)
    """
    _need_head(config, "nsp")
    return _apply(config, params, "nsp_logits", pooled)


def rtd_logits(config: ModelConfig, params: Params, hidden_BxLxD: Array) -> Array:
    """Return a logit for each token, [B, L] float32: above 0 where it looks replaced.

    `hidden_BxLxD` are the hidden states of rows in which a generator has replaced some tokens
    (arXiv 2003.10555). Raises `UserError` if the model has no head for replaced tokens.

    >>> import bertjax, jax
    >>> config = bertjax.ModelConfig(hidden_size=32, num_attention_heads=2, heads=("rtd",))
    >>> params = bertjax.init(config, jax.random.key(0))
    >>> from bertjax.model.functional import rtd_logits
    >>> rtd_logits(config, params, jax.numpy.zeros((1, 4, 32))).shape
    (1, 4)
    """
    _need_head(config, "rtd")
    return _apply(config, params, "rtd_logits", hidden_BxLxD)


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
    return Network(config, layout).apply({"params": params}, *args, method=method, **kwargs)
