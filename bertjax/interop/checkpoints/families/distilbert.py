"""DistilBERT (arXiv 1910.01108)."""

from bertjax.interop.checkpoints.families.bert import bert_names
from bertjax.interop.checkpoints.families.family import PLAIN_TASKS, TASK_HEAD, Family
from bertjax.interop.checkpoints.families.rules import (
    COMMON,
    Activation,
    Copy,
    Only,
    Tied,
    copies,
)

_LAYER = {
    "attention/query": "attention.q_lin",
    "attention/key": "attention.k_lin",
    "attention/value": "attention.v_lin",
    "attention/output": "attention.out_lin",
    "attention_layer_norm": "sa_layer_norm",
    "mlp/up": "ffn.lin1",
    "mlp/down": "ffn.lin2",
    "mlp_layer_norm": "output_layer_norm",
}
_WITH_POOLER = {"pooler": "pre_classifier", TASK_HEAD: "classifier"}
DISTILBERT = Family(
    name="distilbert",
    rules=(
        *COMMON,
        *copies(vocab_size=30_522, max_position_embeddings=512, initializer_range=0.02),
        Copy("dim", 768, "hidden_size"),
        Copy("n_layers", 6, "num_hidden_layers"),
        Copy("n_heads", 12, "num_attention_heads"),
        Copy("hidden_dim", 3072, "intermediate_size"),
        Copy("dropout", 0.1, "hidden_dropout_prob"),
        Copy("attention_dropout", 0.1, "attention_probs_dropout_prob"),
        Activation("activation", "gelu", ("hidden_act", "mlm_act")),
        # Other names that `transformers` would take for those above.
        Only("hidden_size", (None,)),
        Only("num_attention_heads", (None,)),
        Only("num_hidden_layers", (None,)),
        Tied(),
    ),
    names=(
        bert_names(
            "distilbert",
            "transformer.layer.{}",
            _LAYER,
            {},
            {
                "mlm": "vocab_projector",
                "mlm/transform": "vocab_transform",
                "mlm/layer_norm": "vocab_layer_norm",
                "pooler": "pre_classifier",
            },
            {"vocab_projector.weight": "embeddings/word/embedding"},
        ),
    ),
    classes={"DistilBertForMaskedLM": frozenset({"mlm"}), "DistilBertModel": frozenset()},
    tasks={**PLAIN_TASKS, "SequenceClassification": _WITH_POOLER, "MultipleChoice": _WITH_POOLER},
    task_class="DistilBert",
    in_flax=True,
    head_dropout=("seq_classif_dropout", "qa_dropout"),
)
