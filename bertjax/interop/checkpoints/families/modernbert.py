"""ModernBERT (arXiv 2412.13663), with Ettin (arXiv 2507.11412) and mmBERT (arXiv 2509.06888)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bertjax.config import ModelConfig
from bertjax.interop.checkpoints.families.family import (
    PLAIN_TASKS,
    TASK_HEAD,
    Family,
    Names,
    Packed,
    in_layers,
    packed,
    under,
)
from bertjax.interop.checkpoints.families.rotary import RotaryWindows
from bertjax.interop.checkpoints.families.rules import (
    COMMON,
    Activation,
    Biases,
    Copy,
    HeadWidth,
    Only,
    Rule,
    Tied,
    Translated,
    Values,
    copies,
    with_rule,
)


@dataclass(frozen=True)
class _Dropout(Rule):
    """Dropout rates; that of attention is for its probabilities and for its output."""

    def read(self, values: Values) -> dict[str, Any]:
        rates = {"attention": values.get("attention_dropout", 0.0)}
        rates["embeddings"] = values.get("embedding_dropout", 0.0)
        # It comes before the last linear layer of the sublayer, where bertjax has none.
        if values.get("mlp_dropout", 0.0) != 0:
            raise values.refused("mlp_dropout", "0")
        given = [rate for rate in rates.values() if rate != 0]
        if any(rate != given[0] for rate in given):
            raise values.refused("embedding_dropout", "0, or that of attention_dropout")
        return {
            "attention_probs_dropout_prob": rates["attention"],
            "hidden_dropout_prob": given[0] if given else 0.0,
            "dropout_places": tuple(place for place in ("embeddings", "attention") if rates[place])
            or ("attention",),
        }

    def write(self, config: ModelConfig) -> dict[str, Any]:
        in_embeddings = "embeddings" in config.dropout_places
        return {
            "attention_dropout": config.attention_probs_dropout_prob,
            "embedding_dropout": config.hidden_dropout_prob if in_embeddings else 0.0,
        }


_WINDOWS = RotaryWindows((160_000.0, 10_000.0), width=128, every=3)


def _encoder(projections: Mapping[str, str | Packed]) -> dict[str, str | Packed]:
    """Return the modules of the encoder; `projections` are those of queries, keys and values."""
    in_layer = {
        "attention_layer_norm": "attn_norm",
        **projections,
        "attention/output": "attn.Wo",
        "mlp_layer_norm": "mlp_norm",
        # The first half goes through the activation.
        **packed("mlp.Wi", "mlp/gate", "mlp/up"),
        "mlp/down": "mlp.Wo",
    }
    return {
        "embeddings/word": "embeddings.tok_embeddings",
        "embeddings/layer_norm": "embeddings.norm",
        "encoder/final_norm": "final_norm",
        **in_layers("layers.{}", in_layer),
    }


def _names(projections: Mapping[str, str | Packed], head: str) -> Names:
    """Return names; `head` is that of what comes before the matrix of words."""
    return Names(
        prefix="model.",
        modules={
            **under("model.", _encoder(projections)),
            "mlm": "decoder",
            "mlm/transform": f"{head}.dense",
            "mlm/layer_norm": f"{head}.norm",
            # The classes for tasks have the same layers before their last one, so a new pooler
            # begins with the numbers of the head for masked words.
            "pooler": f"{head}.dense",
            "pooler/layer_norm": f"{head}.norm",
        },
        copies={"decoder.weight": "embeddings/word/embedding"},
        not_in_first=frozenset({"encoder/layers/attention_layer_norm"}),
    )


MODERNBERT = Family(
    name="modernbert",
    rules=(
        *COMMON,
        *copies(
            vocab_size=50_368,
            hidden_size=768,
            intermediate_size=1152,
            num_hidden_layers=22,
            num_attention_heads=12,
            max_position_embeddings=8192,
            initializer_range=0.02,
        ),
        Copy("norm_eps", 1e-5, "layer_norm_eps"),
        Activation("hidden_activation", "gelu"),
        Activation("classifier_activation", "gelu", ("mlm_act", "pooler_act")),
        Biases(
            {
                "attention_bias": (False, ("attention",)),
                "mlp_bias": (False, ("mlp", "mlp_output")),
                "norm_bias": (False, ("norm",)),
                "classifier_bias": (False, ("mlm_transform", "pooler")),
                "decoder_bias": (True, ("mlm",)),
            }
        ),
        Translated("classifier_pooling", "cls", "pooling", {"cls": "first", "mean": "mean"}),
        _WINDOWS,
        # In `transformers` it overwrites `local_attention` by twice its value.
        Only("sliding_window", (None,)),
        _Dropout(),
        HeadWidth("head_dim"),
        Tied(),
    ),
    names=(
        _names(packed("attn.Wqkv", "attention/query", "attention/key", "attention/value"), "head"),
    ),
    classes={"ModernBertForMaskedLM": frozenset({"mlm"}), "ModernBertModel": frozenset()},
    tasks={task: {TASK_HEAD: "classifier"} for task in PLAIN_TASKS},
    task_class="ModernBert",
    head_dropout=("classifier_dropout",),
    special_ids={
        "bos_token_id": "cls",
        "cls_token_id": "cls",
        "eos_token_id": "sep",
        "sep_token_id": "sep",
    },
)
# Ettin's decoders. In `transformers` half of the window counts the token itself in this class.
MODERNBERT_DECODER = replace(
    MODERNBERT,
    model_type="modernbert-decoder",
    rules=with_rule(MODERNBERT.rules, _WINDOWS, replace(_WINDOWS, counts_own=True)),
    names=(
        _names(
            {
                "attention/query": "attn.q_proj",
                "attention/key": "attn.k_proj",
                "attention/value": "attn.v_proj",
            },
            "lm_head",
        ),
    ),
    classes={"ModernBertDecoderForCausalLM": frozenset({"mlm"})},
    tasks={},
)
