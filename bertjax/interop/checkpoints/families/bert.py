"""BERT, RoBERTa, XLM-RoBERTa, ELECTRA and ALBERT."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bertjax.config import ModelConfig
from bertjax.interop.checkpoints.families.family import (
    PLAIN_TASKS,
    TASK_HEAD,
    Family,
    Names,
    in_layers,
    under,
)
from bertjax.interop.checkpoints.families.rules import (
    COMMON,
    NO_DECODER,
    Activation,
    Only,
    Positive,
    Rule,
    Tied,
    Values,
    copies,
    with_rule,
)

SAME_NAME_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
)
"""Fields with the same name in config.json and `ModelConfig`."""
# Older versions saved these constant buffers beside the parameters.
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def bert_rules(**defaults: Any) -> tuple[Rule, ...]:
    """Return the rules of BERT; `defaults` are those of the family's class where BERT's differ."""
    all_defaults = {name: getattr(ModelConfig, name) for name in SAME_NAME_FIELDS} | defaults
    activation = all_defaults.pop("hidden_act", "gelu")
    types = all_defaults.pop("type_vocab_size")
    return (
        *COMMON,
        Only("position_embedding_type", ("absolute", None)),
        *copies(**all_defaults),
        Positive("type_vocab_size", types),
        Activation("hidden_act", activation),
        Tied(),
    )


@dataclass(frozen=True)
class _AfterPadding(Rule):
    """Positions that begin after the padding id, whose row of the table is no position.

    See `create_position_ids_from_input_ids` in `transformers`.
    """

    default: int = 1

    def read(self, values: Values) -> dict[str, Any]:
        return {"position_offset": values.count("pad_token_id", self.default) + 1}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        # Another offset cannot be written, so the configuration that is read again differs.
        return {"pad_token_id": max(config.position_offset - 1, 0)}


@dataclass(frozen=True)
class _Projected(Rule):
    """The width of the embeddings, which are projected to the hidden size."""

    default: int
    always: bool
    """Whether they are projected also where the two widths are equal."""

    def read(self, values: Values) -> dict[str, Any]:
        width = values.count("embedding_size", self.default)
        is_same = width == values.get("hidden_size", 256)
        return {"embedding_size": 0 if is_same and not self.always else width}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        return {"embedding_size": config.embedding_width}


EMBEDDINGS = {
    "embeddings/word": "embeddings.word_embeddings",
    "embeddings/position": "embeddings.position_embeddings",
    "embeddings/token_type": "embeddings.token_type_embeddings",
    "embeddings/layer_norm": "embeddings.LayerNorm",
}
_LAYER = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "attention_layer_norm": "attention.output.LayerNorm",
    "mlp/up": "intermediate.dense",
    "mlp/down": "output.dense",
    "mlp_layer_norm": "output.LayerNorm",
}
_ALBERT_LAYER = {
    "attention/query": "attention.query",
    "attention/key": "attention.key",
    "attention/value": "attention.value",
    "attention/output": "attention.dense",
    "attention_layer_norm": "attention.LayerNorm",
    "mlp/up": "ffn",
    "mlp/down": "ffn_output",
    "mlp_layer_norm": "full_layer_layer_norm",
}


def bert_names(
    prefix: str,
    layer: str,
    in_layer: Mapping[str, str],
    others: Mapping[str, str],
    heads: Mapping[str, str],
    copied: Mapping[str, str],
) -> Names:
    """Return names; those of the encoder (embeddings, layers, `others`) begin with `prefix`.

    `copied` has the names of the tied copies. They are those of `_tied_weights_keys` in the classes
    of `transformers`.
    """
    encoder = {**EMBEDDINGS, **in_layers(layer, in_layer), **others}
    return Names(
        prefix=f"{prefix}.",
        modules={**under(f"{prefix}.", encoder), **heads},
        copies=copied,
        ignored=BUFFERS,
    )


def _decoder(head: str) -> dict[str, str]:
    """Return the copies in the linear layer of a head for masked words."""
    return {
        f"{head}.decoder.weight": "embeddings/word/embedding",
        f"{head}.decoder.bias": "mlm/bias",
    }


BERT = Family(
    name="bert",
    rules=bert_rules(),
    names=(
        bert_names(
            "bert",
            "encoder.layer.{}",
            _LAYER,
            {"pooler": "pooler.dense"},
            {
                "mlm": "cls.predictions",
                "mlm/transform": "cls.predictions.transform.dense",
                "mlm/layer_norm": "cls.predictions.transform.LayerNorm",
                "nsp": "cls.seq_relationship",
            },
            _decoder("cls.predictions"),
        ),
    ),
    classes={
        "BertForPreTraining": frozenset({"mlm", "nsp"}),
        "BertForMaskedLM": frozenset({"mlm"}),
        "BertForNextSentencePrediction": frozenset({"nsp"}),
        "BertModel": frozenset(),
    },
    tasks=PLAIN_TASKS,
    task_class="Bert",
    in_flax=True,
    pooler_in_encoder=True,
)

# Trained without sentence pairs (arXiv 1907.11692), so it has no head for them.
_ROBERTA_NAMES = bert_names(
    "roberta",
    "encoder.layer.{}",
    _LAYER,
    {"pooler": "pooler.dense"},
    {"mlm": "lm_head", "mlm/transform": "lm_head.dense", "mlm/layer_norm": "lm_head.layer_norm"},
    _decoder("lm_head"),
)
ENDS = {"bos_token_id": "cls", "eos_token_id": "sep"}
"""Of families whose defaults for both are ids of the tokenizer that they were published with."""
# Only the head of this class has a hidden layer, which is the pooler in bertjax.
_ROBERTA_TASKS = {
    **PLAIN_TASKS,
    "SequenceClassification": {"pooler": "classifier.dense", TASK_HEAD: "classifier.out_proj"},
}
ROBERTA = Family(
    name="roberta",
    rules=(*bert_rules(vocab_size=50_265), _AfterPadding()),
    names=(_ROBERTA_NAMES,),
    classes={"RobertaForMaskedLM": frozenset({"mlm"}), "RobertaModel": frozenset()},
    tasks=_ROBERTA_TASKS,
    task_class="Roberta",
    special_ids=ENDS,
    in_flax=True,
    pooler_in_encoder=True,
)
XLM_ROBERTA = replace(
    ROBERTA,
    name="xlm-roberta",
    rules=(*bert_rules(), _AfterPadding()),
    classes={"XLMRobertaForMaskedLM": frozenset({"mlm"}), "XLMRobertaModel": frozenset()},
    task_class="XLMRoberta",
)
# Without a pooler. The masked-word head is the generator's, that for replaced tokens the
# discriminator's (arXiv 2003.10555).
ELECTRA = Family(
    name="electra",
    rules=(
        *bert_rules(hidden_size=256, num_attention_heads=4, intermediate_size=1024),
        _Projected(128, always=False),
    ),
    names=(
        bert_names(
            "electra",
            "encoder.layer.{}",
            _LAYER,
            {"embeddings/projection": "embeddings_project"},
            {
                "mlm": "generator_lm_head",
                "mlm/transform": "generator_predictions.dense",
                "mlm/layer_norm": "generator_predictions.LayerNorm",
                "rtd/dense": "discriminator_predictions.dense",
                "rtd/output": "discriminator_predictions.dense_prediction",
            },
            # The head is the decoder itself, so its bias is the parameter and not a copy.
            {"generator_lm_head.weight": "embeddings/word/embedding"},
        ),
    ),
    classes={
        "ElectraForMaskedLM": frozenset({"mlm"}),
        "ElectraForPreTraining": frozenset({"rtd"}),
        "ElectraModel": frozenset(),
    },
    tasks=PLAIN_TASKS,
    task_class="Electra",
    in_flax=True,
)
# One group of one layer, which all layers share (arXiv 1909.11942).
ALBERT = Family(
    name="albert",
    rules=(
        *bert_rules(
            vocab_size=30_000,
            hidden_size=4096,
            num_attention_heads=64,
            intermediate_size=16_384,
            hidden_act="gelu_new",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        _Projected(128, always=True),
        # Groups of layers with weights of their own, and the layers of a group.
        Only("num_hidden_groups", (1, None)),
        Only("inner_group_num", (1, None)),
    ),
    names=(
        bert_names(
            "albert",
            "encoder.albert_layer_groups.0.albert_layers.0",
            _ALBERT_LAYER,
            {"embeddings/projection": "encoder.embedding_hidden_mapping_in", "pooler": "pooler"},
            {
                "mlm": "predictions",
                "mlm/transform": "predictions.dense",
                "mlm/layer_norm": "predictions.LayerNorm",
                # This head tells the order of two sentences; it has the shape of BERT's.
                "nsp": "sop_classifier.classifier",
            },
            _decoder("predictions"),
        ),
    ),
    classes={
        "AlbertForPreTraining": frozenset({"mlm", "nsp"}),
        "AlbertForMaskedLM": frozenset({"mlm"}),
        "AlbertModel": frozenset(),
    },
    tasks=PLAIN_TASKS,
    task_class="Albert",
    special_ids=ENDS,
    in_flax=True,
    pooler_in_encoder=True,
    # It has a rate of its own for the head, 0.1 by default; bertjax takes the hidden one.
    head_dropout=("classifier_dropout_prob",),
)


def _decoder_of(family: Family, class_name: str) -> Family:
    """Return the family's causal class: the same tensors; a token sees those up to itself."""
    is_decoder = Only("is_decoder", (True,), written=True)
    return replace(
        family,
        rules=with_rule(family.rules, NO_DECODER, is_decoder),
        classes={class_name: frozenset({"mlm"})},
        tasks={},
        special_ids=ENDS,
        pooler_in_encoder=False,
    )


BERT_DECODER = _decoder_of(BERT, "BertLMHeadModel")
ROBERTA_DECODER = _decoder_of(ROBERTA, "RobertaForCausalLM")
XLM_ROBERTA_DECODER = _decoder_of(XLM_ROBERTA, "XLMRobertaForCausalLM")
ELECTRA_DECODER = _decoder_of(ELECTRA, "ElectraForCausalLM")
