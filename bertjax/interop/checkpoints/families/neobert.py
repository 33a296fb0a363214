"""NeoBERT (arXiv 2502.19587), which has no class in `transformers`.

The names and fields are those of the authors' model on the hub, chandar-lab/NeoBERT.
"""

from dataclasses import dataclass
from typing import Any

from bertjax.config import ModelConfig
from bertjax.interop.checkpoints.families.family import (
    TASK_HEAD,
    Family,
    Names,
    in_layers,
    packed,
    under,
)
from bertjax.interop.checkpoints.families.rules import (
    COMMON,
    Copy,
    HeadWidth,
    Only,
    Rule,
    Values,
)


@dataclass(frozen=True)
class _GatedWidth(Rule):
    """The feed-forward size: two thirds of the number in config.json, in eights, rounded up."""

    name: str = "intermediate_size"

    def read(self, values: Values) -> dict[str, Any]:
        two_thirds = 2 * values.count(self.name, -1) // 3
        return {"intermediate_size": 8 * -(-two_thirds // 8)}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        return {self.name: config.intermediate_size * 3 // 2}


@dataclass(frozen=True)
class _OtherRanges(Rule):
    """Ranges of the other initial numbers, which are those of the embeddings here."""

    def write(self, config: ModelConfig) -> dict[str, Any]:
        names = ("decoder_init_range", "classifier_init_range")
        return dict.fromkeys(names, config.initializer_range)


_ENCODER = {
    "embeddings/word": "encoder",
    "encoder/final_norm": "layer_norm",
    **in_layers(
        "transformer_encoder.{}",
        {
            "attention_layer_norm": "attention_norm",
            **packed("qkv", "attention/query", "attention/key", "attention/value", per_head=True),
            "attention/output": "wo",
            "mlp_layer_norm": "ffn_norm",
            # The first half goes through the activation.
            **packed("ffn.w12", "mlp/gate", "mlp/up"),
            "mlp/down": "ffn.w3",
        },
    ),
}

NEOBERT = Family(
    name="neobert",
    rules=(
        *COMMON,
        # Without defaults: the class and the published model have different ones.
        Copy("vocab_size", None),
        Copy("hidden_size", None),
        Copy("num_hidden_layers", None),
        Copy("num_attention_heads", None),
        Copy("max_length", None, "max_position_embeddings"),
        Copy("norm_eps", None, "layer_norm_eps"),
        Copy("embedding_init_range", 0.02, "initializer_range"),
        _GatedWidth(),
        _OtherRanges(),
        HeadWidth("dim_head", written=True),
        # Variants of the code have these; one of them rotates other pairs of elements.
        Only("encoder_init_range", (None,)),
        Only("hidden_act", (None,)),
        Only("rms_norm", (None,)),
        Only("max_position_embeddings", (None,)),
        Only("rope_theta", (None,)),
        Only("rope_scaling", (None,)),
        Only("rope_parameters", (None,)),
        # The head has a matrix of its own.
        Only("tie_word_embeddings", (False, None)),
    ),
    names=(
        Names(
            prefix="model.",
            modules={**under("model.", _ENCODER), "mlm": "decoder", "pooler": "dense"},
            tensors={"mlm/decoder": "decoder.weight"},
        ),
    ),
    classes={"NeoBERTLMHead": frozenset({"mlm"}), "NeoBERT": frozenset()},
    tasks={"SequenceClassification": {"pooler": "dense", TASK_HEAD: "classifier"}},
    task_class="NeoBERT",
    has_class=False,
)
