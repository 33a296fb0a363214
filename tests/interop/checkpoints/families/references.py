"""Tiny random models of `transformers`, one or more of each family."""

from typing import Any, NamedTuple

import numpy as np
import pytest

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
DISENTANGLED = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "legacy": False,
}
MODERN = {**ENDS, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 8}


class Reference(NamedTuple):
    """A class of `transformers`, and the fields of its configuration."""

    name: str
    fields: dict[str, Any]
    is_written_alike: bool = True
    """Whether an export has the same class and names of tensors."""


def _with_head(name: str, **fields: Any) -> Reference:
    return Reference(name, {**SHAPE, **fields})


REFERENCES = {
    "xlm_roberta": Reference("XLMRobertaForMaskedLM", {**SHAPE, "pad_token_id": 1}),
    "electra": _with_head("ElectraForMaskedLM", embedding_size=16),
    "distilbert": Reference(
        "DistilBertForMaskedLM",
        {
            "vocab_size": 50,
            "dim": 16,
            "n_layers": 4,
            "n_heads": 2,
            "hidden_dim": 24,
            "max_position_embeddings": 64,
            "activation": "relu",
        },
    ),
    "modernbert": _with_head("ModernBertForMaskedLM", **MODERN),
    "modernbert_biases": _with_head(
        "ModernBertForMaskedLM",
        **MODERN,
        attention_bias=True,
        mlp_bias=True,
        norm_bias=True,
        classifier_bias=True,
        decoder_bias=False,
        hidden_activation="silu",
        classifier_activation="relu",
        norm_eps=1e-3,
        layer_types=["sliding_attention", "full_attention"] * 2,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
            "sliding_attention": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0},
        },
    ),
    "modernbert_alone": _with_head("ModernBertModel", **MODERN),
    "eurobert": _with_head("EuroBertForMaskedLM", **ENDS, num_key_value_heads=1),
    "eurobert_biases": _with_head(
        "EuroBertForMaskedLM",
        **ENDS,
        attention_bias=True,
        mlp_bias=True,
        head_dim=4,
        rope_parameters={"rope_type": "default", "rope_theta": 250000.0},
    ),
    "ultrabert": _with_head(
        "UltrabertForMaskedLM", sliding_window=4, prediction_head_size=20, num_key_value_heads=1
    ),
    "ultrabert_alone": _with_head(
        "UltrabertModel", sliding_window=3, attention_bias=True, mlp_bias=True
    ),
    "nomic_bert": _with_head("NomicBertForMaskedLM"),
    "nomic_bert_few_heads": _with_head("NomicBertForMaskedLM", num_attention_heads=3, head_dim=4),
    "gte": _with_head("GteForMaskedLM"),
    "gte_without_types": _with_head("GteForMaskedLM", type_vocab_size=0, hidden_act="silu"),
    "gte_alone": _with_head("GteModel"),
    "deberta_v3": _with_head("DebertaV2ForMaskedLM", **DISENTANGLED),
    "deberta_own": _with_head(
        "DebertaV2ForMaskedLM",
        **{**DISENTANGLED, "share_att_key": False, "position_biased_input": True},
        type_vocab_size=2,
        max_relative_positions=40,
        layer_norm_eps=1e-3,
    ),
    "deberta_legacy": Reference(
        "DebertaV2ForMaskedLM",
        {**SHAPE, **DISENTANGLED, "legacy": True},
        is_written_alike=False,
    ),
}


def made(reference: Reference) -> Any:
    """Return the model with no parameter at its initial 0 or 1."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    kind = getattr(transformers, reference.name)
    model = kind(kind.config_class(**reference.fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def padded_rows() -> tuple[np.ndarray, np.ndarray]:
    """Return ids and mask of rows that are several windows long, one of them padded."""
    mask = (np.arange(40)[None] < np.array([[40], [25]])).astype(np.int32)
    ids = np.random.default_rng(0).integers(5, 50, mask.shape)
    return (ids * mask).astype(np.int32), mask
