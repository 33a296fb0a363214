"""The families of encoders: for each the fields of `ModelConfig` in which it differs from BERT.

A family has no code of its own. Sizes (width, layers, heads, vocabulary) are those of the
configurations in `configs/`.
"""

from collections.abc import Mapping
from typing import Any

from bertjax.config.model import ModelConfig
from bertjax.errors import check, nearest

# Rotary positions, a norm before each sublayer, and a gated feed-forward sublayer without biases.
_ROTARY_GATED: Mapping[str, Any] = {
    "positions": "rotary",
    "type_vocab_size": 0,
    "norm_place": "before",
    "final_norm": True,
    "feed_forward": "gated",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-5,
    "heads": ("mlm",),
}

FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    # arXiv 1907.11692
    "roberta": {
        "position_offset": 2,
        "type_vocab_size": 1,
        "max_position_embeddings": 514,
        "layer_norm_eps": 1e-5,
        "heads": ("mlm",),
        "mlm_act": "gelu",
    },
    # arXiv 2003.10555; as wide as its embeddings it computes what BERT does.
    "electra": {"heads": ("mlm",), "mlm_act": "gelu", "exported_as": "electra"},
    # arXiv 1909.11942
    "albert": {
        "embedding_size": 128,
        "share_layers": True,
        "hidden_act": "gelu_tanh",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    # arXiv 1910.01108; its heads for tasks have a linear layer with relu.
    "distilbert": {
        "type_vocab_size": 0,
        "heads": ("mlm",),
        "pooler_act": "relu",
        "mlm_act": "gelu",
    },
    # arXiv 2412.13663
    "modernbert": {
        **_ROTARY_GATED,
        "rotary_base": 160_000.0,
        "rotary_base_local": 10_000.0,
        "local_attention": 128,
        "global_attn_every_n_layers": 3,
        "first_norm": False,
        "biases": ("mlm",),
        "hidden_dropout_prob": 0.1,
        "dropout_places": ("attention",),
        "max_position_embeddings": 8192,
        "pooler_act": "gelu",
        "pooler_norm": True,
        "token_pooler": True,
        "scaled_init": "depth",
    },
    # arXiv 2503.05500
    "eurobert": {
        **_ROTARY_GATED,
        "rotary_base": 250_000.0,
        "norm_type": "rms_norm",
        "embedding_norm": False,
        "hidden_act": "silu",
        "biases": ("pooler",),
        "max_position_embeddings": 8192,
        "pooling": "mean",
        "pooler_act": "gelu",
        "mlm_transform": False,
        "mlm_tied": False,
    },
    # arXiv 2502.19587
    "neobert": {
        **_ROTARY_GATED,
        "rotary_pairs": "interleaved",
        "norm_type": "rms_norm",
        "embedding_norm": False,
        "hidden_act": "silu",
        "biases": ("mlm", "pooler"),
        "max_position_embeddings": 4096,
        "mlm_transform": False,
        "mlm_tied": False,
        "initializer": "uniform",
    },
    # arXiv 2402.01613
    "nomic_bert": {
        "positions": "rotary",
        "rotary_base": 1000.0,
        "feed_forward": "gated",
        "hidden_act": "silu",
        "biases": ("norm", "mlm_transform", "mlm", "pooler"),
        "max_position_embeddings": 2048,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "heads": ("mlm",),
    },
    # arXiv 2407.19669
    "gte": {
        "positions": "rotary",
        "rotary_base": 160_000.0,
        "type_vocab_size": 1,
        "feed_forward": "gated",
        "biases": ("attention", "mlp_output", "norm", "mlm_transform", "mlm", "pooler"),
        "mlm_act": "gelu",
        "max_position_embeddings": 8192,
        "attention_probs_dropout_prob": 0.0,
        "heads": ("mlm",),
    },
    # arXiv 2111.09543; its pooler has gelu.
    "deberta-v2": {
        "positions": "none",
        "relative_positions": 512,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
        "heads": ("mlm",),
        "pooler_act": "gelu",
    },
    # arXiv 2410.24159
    "gpt_bert": {
        "positions": "none",
        "relative_positions": 63,
        "type_vocab_size": 0,
        "norm_place": "before",
        "norm_scale": False,
        "norm_inside": True,
        "final_norm": True,
        "layer_norm_eps": 1e-5,
        "value_gate": True,
        "layer_mix": True,
        "feed_forward": "gated",
        "hidden_act": "gelu_tanh",
        "biases": ("attention", "mlm_transform", "mlm", "pooler"),
        "mlm_act": "gelu",
        "heads": ("mlm",),
        "scaled_init": "layer",
    },
}
"""From the name of a family, its `model_type` in `transformers`, to values of fields."""
# huggingface.co/dmis-lab/UltraBERT-150M
FAMILIES["ultrabert"] = FAMILIES["eurobert"] | {
    **{"rotary_base": 2_560_000.0, "rotary_base_local": 10_000.0, "layer_norm_eps": 1e-6},
    **{"local_attention": 256, "first_global_layer": 2, "max_position_embeddings": 32_768},
    **{"biases": (), "pooling": "first", "pooler": "none", "pooler_act": "tanh"},
    **{"mlm_transform": True, "mlm_hidden_size": 768, "mlm_act": "gelu_tanh", "mlm_norm": False},
    "exported_as": "ultrabert",
}
# arXiv 1911.02116
FAMILIES["xlm-roberta"] = FAMILIES["roberta"] | {"exported_as": "xlm-roberta"}


def family(name: str, **fields: Any) -> ModelConfig:
    """Return a model of the family `name` with these fields, such as sizes.

    Raises `UserError` for another name, and as `ModelConfig` does for values out of range.

    >>> from bertjax.config import family
    >>> config = family("modernbert", hidden_size=64, num_attention_heads=1, num_hidden_layers=4)
    >>> config.positions, config.attends_globally
    ('rotary', (True, False, False, True))
    """
    check(
        name in FAMILIES,
        where="family",
        found=repr(name),
        expected=f"one of {', '.join(FAMILIES)}{nearest(name, FAMILIES)}",
    )
    return ModelConfig(**{**FAMILIES[name], **fields})
