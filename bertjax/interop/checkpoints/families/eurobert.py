"""EuroBERT (arXiv 2503.05500)."""

from dataclasses import dataclass, replace
from typing import Any

from bertjax.config import ModelConfig
from bertjax.config.field_types import shown
from bertjax.errors import check
from bertjax.interop.checkpoints.families.family import (
    TASK_HEAD,
    WITHOUT_QUESTIONS,
    Family,
    Names,
    in_layers,
    under,
)
from bertjax.interop.checkpoints.families.rotary import Rotary
from bertjax.interop.checkpoints.families.rules import (
    COMMON,
    Activation,
    AnyHeadWidth,
    Biases,
    Copy,
    Rule,
    Tied,
    Translated,
    Values,
    copies,
    with_rule,
)


@dataclass(frozen=True)
class _KeyValueHeads(Rule):
    """Heads of keys and values; left out, as many as those of queries."""

    def read(self, values: Values) -> dict[str, Any]:
        heads = values.count("num_key_value_heads", 0)
        is_same = heads == values.get("num_attention_heads", 12)
        return {"num_key_value_heads": 0 if is_same else heads}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        return {"num_key_value_heads": config.key_value_heads}


@dataclass(frozen=True)
class _Pooling(Translated):
    """Pooling; `late` is the mean of each token's logits, which bertjax does not compute."""

    def check(self, values: Values, config: ModelConfig) -> None:
        found = values.get(self.name, self.default)
        check(
            found != "late" or "pooler" not in config.heads,
            where=f"{values.where}: {self.name}",
            found=shown(found),
            expected="mean or bos, for its linear layer `dense`",
        )


LAYER_RULES: tuple[Rule, ...] = (
    *COMMON,
    Copy("attention_dropout", 0.0, "attention_probs_dropout_prob"),
    Activation("hidden_act", "silu"),
    _KeyValueHeads(),
    Tied(tied=False, default=False),
)
"""Rules for layers like those of Llama, with a free head for masked words."""
ENCODER = {
    "embeddings/word": "embed_tokens",
    "encoder/final_norm": "norm",
    **in_layers(
        "layers.{}",
        {
            "attention_layer_norm": "input_layernorm",
            "attention/query": "self_attn.q_proj",
            "attention/key": "self_attn.k_proj",
            "attention/value": "self_attn.v_proj",
            "attention/output": "self_attn.o_proj",
            "mlp_layer_norm": "post_attention_layernorm",
            "mlp/gate": "mlp.gate_proj",
            "mlp/up": "mlp.up_proj",
            "mlp/down": "mlp.down_proj",
        },
    ),
}

_BIASES = Biases(
    {
        "attention_bias": (False, ("attention",)),
        "mlp_bias": (False, ("mlp", "mlp_output", "mlm")),
    },
    always=("pooler",),
)
EUROBERT = Family(
    name="eurobert",
    rules=(
        *copies(
            vocab_size=128_256,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=8192,
            initializer_range=0.02,
        ),
        Copy("rms_norm_eps", 1e-5, "layer_norm_eps"),
        _BIASES,
        *LAYER_RULES,
        AnyHeadWidth("head_dim"),
        _Pooling(
            "classifier_pooling",
            "late",
            "pooling",
            {"mean": "mean", "bos": "first", "late": "mean"},
        ),
        Rotary(10_000.0),
    ),
    names=(
        Names(
            prefix="model.",
            modules={**under("model.", ENCODER), "mlm": "lm_head", "pooler": "dense"},
            tensors={"mlm/decoder": "lm_head.weight"},
        ),
    ),
    classes={"EuroBertForMaskedLM": frozenset({"mlm"}), "EuroBertModel": frozenset()},
    tasks={
        **WITHOUT_QUESTIONS,
        "SequenceClassification": {"pooler": "dense", TASK_HEAD: "classifier"},
    },
    task_class="EuroBert",
    special_ids={"bos_token_id": "cls", "eos_token_id": "sep", "mask_token_id": "mask"},
)
# Its weights are those of Llama, whose class is causal and has no bias in the head.
EUROBERT_DECODER = replace(
    EUROBERT,
    model_type="llama",
    rules=with_rule(
        EUROBERT.rules,
        _BIASES,
        replace(_BIASES, flags={**_BIASES.flags, "mlp_bias": (False, ("mlp", "mlp_output"))}),
    ),
    classes={"LlamaForCausalLM": frozenset({"mlm"})},
    tasks={},
    special_ids={"bos_token_id": "cls", "eos_token_id": "sep"},
)
