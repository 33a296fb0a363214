"""Configuration of the parts of a layer: positions, attention, norms, feed-forward, biases.

The defaults are those of BERT (arXiv 1810.04805).
"""

from dataclasses import dataclass
from typing import Literal

from bertjax.config.range_checks import not_negative
from bertjax.errors import check

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
"""Activation functions: see `LayerConfig.hidden_act`."""

Bias = Literal["attention", "mlp", "mlp_output", "norm", "mlm_transform", "mlm", "pooler"]
"""Parts of the model that may have biases: see `LayerConfig.biases`."""

Place = Literal["embeddings", "attention", "mlp"]
"""Places of dropout with the rate `hidden_dropout_prob`."""

BIASES: tuple[Bias, ...] = (
    "attention",
    "mlp",
    "mlp_output",
    "norm",
    "mlm_transform",
    "mlm",
    "pooler",
)
PLACES: tuple[Place, ...] = ("embeddings", "attention", "mlp")


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """The parts that all layers are composed of."""

    num_attention_heads: int = 12
    """Number of attention heads H."""
    attention_head_size: int = 0
    """Width K of an attention head; 0: hidden_size / num_attention_heads.
    With pruned heads H x K is less than the hidden size.
    """
    positions: Literal["learned", "sinusoidal", "rotary", "none"] = "learned"
    """How the model knows the absolute position of a token.
    learned: a table of embeddings. sinusoidal: fixed sines and cosines, added to the embeddings
    (arXiv 1706.03762). rotary: queries and keys are rotated by angles that grow with the position
    (arXiv 2104.09864). none: not at all.
    """
    rotary_pairs: Literal["half", "interleaved"] = "half"
    """Elements of a head that are rotated together, with rotary positions.
    half: element i and i + K / 2 of the head width K. interleaved: elements 2 i and 2 i + 1.
    """
    rotary_base: float = 10_000.0
    """Base of the rotary angles in global layers, 1 or more: pair i turns by base^(-2 i / K) per
    position.
    """
    rotary_base_local: float = 0.0
    """Base of the rotary angles in local layers, 1 or more; 0: as in global layers."""
    rotary_scaling: float = 1.0
    """Number that positions are divided by before they are rotated (arXiv 2306.15595); at least 1.
    """
    relative_positions: int = 0
    """Rows of the table of relative positions for disentangled attention (arXiv 2006.03654); 0: no
    such attention. Queries are also compared with the relative position of the key, and keys with
    that of the query. 2 x b or 2 x b - 1 rows are for b buckets of distances on each side: near
    distances have a bucket each, far ones share buckets of logarithmic width.
    """
    relative_max_distance: int = 0
    """Distance from which all relative positions are in the last bucket; 0:
    max_position_embeddings.
    """
    relative_projections: Literal["shared", "own"] = "shared"
    """Projections of the relative positions: those of queries and keys (shared), or own ones."""
    num_key_value_heads: int = 0
    """Number of heads of keys and values, a divisor of num_attention_heads; 0: as many.
    Each is used by several heads of queries (arXiv 2305.13245).
    """
    value_gate: bool = False
    """Multiply the result of attention by the gelu of another projection (arXiv 2410.24159)."""
    local_attention: int = 0
    """Window width in tokens of layers with local attention (arXiv 2412.13663); even; 0: none.
    A token attends to the tokens up to local_attention / 2 positions before and after it. The cost
    of a row is then linear in its length.
    """
    # As ModernBERT (arXiv 2412.13663): every third layer is global, the first among them.
    global_attn_every_n_layers: int = 3
    """With local_attention: every n-th layer is global; 0: no layer."""
    first_global_layer: int = 0
    """With local_attention: the first global layer, counted from 0; below
    global_attn_every_n_layers.
    """
    norm_place: Literal["after", "before", "both"] = "after"
    """Place of the norms of a sublayer.
    after: the sum of its input and output is normalized (arXiv 1706.03762). before: its input is
    normalized, and the sum is not (arXiv 2002.04745). both: its input and its output are
    normalized, and the sum is not (arXiv 2105.13290).
    """
    norm_type: Literal["layer_norm", "rms_norm"] = "layer_norm"
    """Kind of all norms.
    layer_norm: minus the mean, divided by the deviation (arXiv 1607.06450). rms_norm: divided by
    the root of the mean square (arXiv 1910.07467); without biases.
    """
    norm_scale: bool = True
    """Whether norms multiply by a learned scale. That of relative positions always does."""
    norm_inside: bool = False
    """Normalize also before the last linear layer of each sublayer (arXiv 2110.09456)."""
    first_norm: bool = True
    """Whether the first sublayer has a norm before it; arXiv 2412.13663 leaves it out, because the
    embeddings are normalized. For norm_place before and both.
    """
    embedding_norm: bool = True
    """Whether the embeddings are normalized."""
    final_norm: bool = False
    """Whether the last layer's output is normalized; for norm_place before and both."""
    feed_forward: Literal["plain", "gated"] = "plain"
    """Feed-forward sublayer.
    plain: linear, activation, linear. gated: the activation of one linear layer, times another,
    then linear (arXiv 2002.05202).
    """
    hidden_act: Activation = "gelu"
    """Activation of the feed-forward sublayer (arXiv 1606.08415).
    gelu: exact, computed with erf. gelu_tanh: the tanh approximation of gelu, which the original
    code of BERT uses. silu: x times the logistic function of x.
    """
    layer_mix: bool = False
    """Add up the outputs of all earlier sublayers and the embeddings after each sublayer, with
    learned weights (arXiv 2402.02622). The layers are then not computed in a loop: see scan_unroll.
    """
    biases: tuple[Bias, ...] = BIASES
    """Parts that have biases.
    attention: all its linear layers. mlp: the linear layers from D to F. mlp_output: the one back
    to D. norm: all layer norms (that of relative positions always has one).
    mlm_transform: the linear layer of the head for masked words. mlm: the logits of the
    vocabulary. pooler: the pooler's linear layer.
    """
    dropout_places: tuple[Place, ...] = PLACES
    """Places of dropout with the rate hidden_dropout_prob: after the embeddings, after attention,
    after the feed-forward sublayer.
    """

    def is_global(self, layer: int) -> bool:
        """Return true if the layer, counted from 0, has global attention."""
        every = self.global_attn_every_n_layers
        if not self.local_attention:
            return True
        return every > 0 and layer % every == self.first_global_layer


def check_layers(config: LayerConfig) -> None:
    """Raise `UserError` for the first field of `LayerConfig` that is out of its range.

    `check_fields` has checked the types.
    """
    not_negative("model", config, "relative_positions", "relative_max_distance")
    not_negative("model", config, "num_key_value_heads", "attention_head_size")
    not_negative("model", config, "global_attn_every_n_layers", "first_global_layer")
    _check_rotary(config)
    _check_attention(config)
    _check_norms(config)
    for name in ("biases", "dropout_places"):
        values = getattr(config, name)
        check(
            len(set(values)) == len(values),
            where=f"model.{name}",
            found=values,
            expected="each once",
        )


def _check_rotary(config: LayerConfig) -> None:
    # Below 1 later pairs would turn faster than the first, and with a small base overflow.
    for name in ("rotary_base", "rotary_base_local", "rotary_scaling"):
        value, may_be_zero = getattr(config, name), name == "rotary_base_local"
        check(
            value >= 1 or (may_be_zero and value == 0),
            where=f"model.{name}",
            found=value,
            expected="1 or more, or 0" if may_be_zero else "1 or more",
        )


def _check_attention(config: LayerConfig) -> None:
    # The width is even because half of the window is on each side of a token.
    check(
        config.local_attention >= 0 and config.local_attention % 2 == 0,
        where="model.local_attention",
        found=config.local_attention,
        expected="an even number, 0 or more",
    )
    check(
        config.first_global_layer < max(config.global_attn_every_n_layers, 1),
        where="model.first_global_layer",
        found=config.first_global_layer,
        expected=f"less than global_attn_every_n_layers ({config.global_attn_every_n_layers})",
    )
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    check(
        not shared or heads % shared == 0,
        where="model.num_key_value_heads",
        found=shared,
        expected=f"a divisor of model.num_attention_heads ({heads}), or 0",
    )
    check(
        # A side has 4 buckets at least: 2 for near distances, and 2 for far ones.
        config.relative_positions == 0 or config.relative_positions >= 7,
        where="model.relative_positions",
        found=config.relative_positions,
        expected="0, or 7 and more",
    )
    for name in ("local_attention", "num_key_value_heads"):
        check(
            not config.relative_positions or not getattr(config, name),
            where=f"model.{name}",
            found=getattr(config, name),
            expected="0 with model.relative_positions",
        )


def _check_norms(config: LayerConfig) -> None:
    check(
        config.norm_type == "layer_norm" or "norm" not in config.biases,
        where="model.biases",
        found="norm",
        expected="none for norms of norm_type rms_norm",
    )
    after = config.norm_place == "after"
    check(
        config.first_norm or not after,
        where="model.first_norm",
        found=config.first_norm,
        expected="true with norm_place after",
    )
    check(
        not config.final_norm or not after,
        where="model.final_norm",
        found=config.final_norm,
        expected="false with norm_place after",
    )
