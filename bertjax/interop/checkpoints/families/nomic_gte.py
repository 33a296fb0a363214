"""NomicBERT (arXiv 2402.01613) and GTE (arXiv 2407.19669).

The names on disk are those of the authors. `transformers` converts them to names of its own.
"""

from bertjax.interop.checkpoints.families.bert import BUFFERS, EMBEDDINGS
from bertjax.interop.checkpoints.families.family import (
    WITHOUT_QUESTIONS,
    Family,
    Names,
    in_layers,
    packed,
    under,
)
from bertjax.interop.checkpoints.families.rotary import Rotary
from bertjax.interop.checkpoints.families.rules import (
    COMMON,
    Activation,
    AnyHeadWidth,
    HeadWidth,
    Only,
    Positive,
    Tied,
    copies,
)

# Those of GPT-2, and `rotary_emb_base`; the published models have them.
_AUTHORS_FIELDS = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
    "resid_pdrop": "hidden_dropout_prob",
    "attn_pdrop": "attention_probs_dropout_prob",
}
_QUERY_KEY_VALUE = ("attention/query", "attention/key", "attention/value")

_NOMIC_ENCODER = {
    **EMBEDDINGS,
    "embeddings/layer_norm": "emb_ln",
    "pooler": "pooler.dense",
    **in_layers(
        "encoder.layers.{}",
        {
            **packed("attn.Wqkv", *_QUERY_KEY_VALUE),
            "attention/output": "attn.out_proj",
            "attention_layer_norm": "norm1",
            "mlp/up": "mlp.fc11",
            "mlp/gate": "mlp.fc12",
            "mlp/down": "mlp.fc2",
            "mlp_layer_norm": "norm2",
        },
    ),
}


def _nomic_names(prefix: str) -> Names:
    return Names(
        prefix=prefix,
        modules={
            **under(prefix, _NOMIC_ENCODER),
            "mlm": "cls.predictions",
            "mlm/transform": "cls.predictions.transform.dense",
            "mlm/layer_norm": "cls.predictions.transform.layer_norm",
        },
        copies={
            "cls.predictions.decoder.weight": "embeddings/word/embedding",
            "cls.predictions.decoder.bias": "mlm/bias",
        },
        ignored=BUFFERS,
    )


NOMIC_BERT = Family(
    name="nomic_bert",
    rules=(
        *COMMON,
        *copies(
            vocab_size=30_528,
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=2048,
            initializer_range=0.02,
            layer_norm_eps=1e-12,
        ),
        Positive("type_vocab_size", 2),
        Activation("hidden_act", "silu"),
        # Fields that the authors' own code has besides.
        Only("activation_function", ("swiglu", None)),
        Only("prenorm", (False, None)),
        Only("causal", (False, None)),
        Only("parallel_block", (False, None)),
        Only("use_rms_norm", (False, None)),
        Only("qkv_proj_bias", (False, None)),
        Only("mlp_fc1_bias", (False, None)),
        Only("mlp_fc2_bias", (False, None)),
        Only("rotary_emb_fraction", (1.0, 1, None)),
        Only("rotary_emb_interleaved", (False, None)),
        Only("rotary_emb_scale_base", (None,)),
        Only("rotary_scaling_factor", (None,)),
        Rotary(1000.0),
        AnyHeadWidth("head_dim"),
        Tied(),
    ),
    # The second are the names of the authors' own code.
    names=(_nomic_names("nomic_bert."), _nomic_names("bert.")),
    classes={"NomicBertForMaskedLM": frozenset({"mlm"}), "NomicBertModel": frozenset()},
    tasks=WITHOUT_QUESTIONS,
    task_class="NomicBert",
    other_fields=_AUTHORS_FIELDS,
    head_dropout=("classifier_dropout",),
)

_GTE_ENCODER = {
    **EMBEDDINGS,
    "pooler": "pooler.dense",
    **in_layers(
        "encoder.layer.{}",
        {
            **packed("attention.qkv_proj", *_QUERY_KEY_VALUE),
            "attention/output": "attention.o_proj",
            "attention_layer_norm": "attn_ln",
            # The second half goes through the activation.
            **packed("mlp.up_gate_proj", "mlp/up", "mlp/gate"),
            "mlp/down": "mlp.down_proj",
            "mlp_layer_norm": "mlp_ln",
        },
    ),
}


def _gte_names(prefix: str) -> Names:
    return Names(
        prefix=prefix,
        modules={
            **under(prefix, _GTE_ENCODER),
            "mlm": "lm_head.decoder",
            "mlm/transform": "lm_head.dense",
            "mlm/layer_norm": "lm_head.norm",
        },
        copies={"lm_head.decoder.weight": "embeddings/word/embedding"},
        ignored=BUFFERS,
    )


GTE = Family(
    name="gte",
    rules=(
        *COMMON,
        *copies(
            vocab_size=250_048,
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=8192,
            type_vocab_size=1,
            initializer_range=0.02,
            layer_norm_eps=1e-12,
        ),
        Activation("hidden_act", "gelu"),
        Rotary(160_000.0),
        HeadWidth("head_dim"),
        Tied(),
    ),
    # The second are the names of the authors' first files.
    names=(_gte_names("gte."), _gte_names("new.")),
    classes={"GteForMaskedLM": frozenset({"mlm"}), "GteModel": frozenset()},
    tasks=WITHOUT_QUESTIONS,
    task_class="Gte",
    head_dropout=("classifier_dropout",),
)
