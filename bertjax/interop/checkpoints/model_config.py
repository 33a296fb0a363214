"""Conversion between the config.json of `transformers` and `ModelConfig`.

A configuration for which `transformers` and bertjax compute different results is refused.
"""

from collections.abc import Collection, Mapping
from typing import Any

from bertjax.config import ModelConfig, from_dict
from bertjax.errors import UserError, check
from bertjax.interop.checkpoints.tensor_names import MODULES
from bertjax.tasks.task_head import TaskHead

# `hidden_act` of transformers to that of bertjax; of two with one meaning the first is written.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Fields with the same name in config.json and `ModelConfig`.
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
# Defaults of transformers for fields that a config.json leaves out, where `ModelConfig` has others:
# a config.json may hold no more than what differs from them.
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"vocab_size": 50_265},
    "electra": {
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "embedding_size": 128,
    },
    "albert": {
        "vocab_size": 30_000,
        "hidden_size": 4096,
        "num_attention_heads": 64,
        "intermediate_size": 16_384,
        "embedding_size": 128,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}
# Allowed values of a field; with other values transformers computes something bertjax does not.
ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "transformers_weights": (None,),  # the name of another file with the weights
    "position_embedding_type": ("absolute", None),
    # A decoder does not attend to later tokens, and it attends to an encoder's output.
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),  # attention heads that some layers lack
    "quantization_config": (None,),  # weights of integers with scales
    # ALBERT's groups of layers with weights of their own, and the layers of a group.
    "num_hidden_groups": (1, None),
    "inner_group_num": (1, None),
}
# Classes of transformers and their heads, most heads first. The first class that fits is used.
ARCHITECTURES: dict[str, dict[str, set[str]]] = {
    "bert": {
        "BertForPreTraining": {"mlm", "nsp"},
        "BertForMaskedLM": {"mlm"},
        "BertForNextSentencePrediction": {"nsp"},
        "BertModel": set(),
    },
    "roberta": {"RobertaForMaskedLM": {"mlm"}, "RobertaModel": set()},
    "electra": {"ElectraForMaskedLM": {"mlm"}, "ElectraModel": set()},
    "albert": {
        "AlbertForPreTraining": {"mlm", "nsp"},
        "AlbertForMaskedLM": {"mlm"},
        "AlbertModel": set(),
    },
}
# Classes of transformers with the names of a head's outputs in config.json.
LABELLED_CLASSES = ("SequenceClassification", "TokenClassification")
# See `RobertaLMHead` and `ElectraGeneratorPredictions` in transformers.
GELU_HEADS = ("electra", "roberta")  # their masked-word heads use gelu whatever hidden_act is


def huggingface_architecture(config: ModelConfig) -> str:
    """Return the `model_type` of `transformers` that computes the same as `config`.

    Raises `UserError` naming the field where none does.
    """
    check(
        not config.local_attention,
        where="model.local_attention",
        found=config.local_attention,
        expected="0: no BERT there has windows",
    )
    heirs = []
    if config.share_layers:
        heirs.append("albert")
    if config.position_offset > 0:
        heirs.append("roberta")
    if config.embedding_size > 0 and not config.share_layers:
        heirs.append("electra")
    check(
        len(heirs) <= 1,
        where="model",
        found=f"what makes it {' and '.join(heirs)} at once",
        expected="one architecture of transformers",
    )
    architecture = heirs[0] if heirs else "bert"
    _check_embedding_size(architecture, config)
    for head in config.heads:
        check(
            head in MODULES[architecture],
            where="model.heads",
            found=head,
            expected=f"a head of {architecture}, which the other settings make it",
        )
    check_mlm_activation(architecture, config, "model")
    return architecture


def _check_embedding_size(architecture: str, config: ModelConfig) -> None:
    size = config.embedding_size
    if architecture == "albert":
        check(
            size > 0,
            where="model.embedding_size",
            found=0,
            expected="a width: ALBERT, which shares layers, always projects its embeddings",
        )
    if architecture == "electra":
        # transformers leaves the projection out where the two are equal; ModelConfig has it then.
        check(
            size != config.hidden_size,
            where="model.embedding_size",
            found=size,
            expected="another than model.hidden_size, for ELECTRA",
        )


def check_mlm_activation(architecture: str, config: ModelConfig, where: str) -> None:
    """Raise `UserError` where the masked-word head of `transformers` uses another activation."""
    if architecture in GELU_HEADS and "mlm" in config.heads:
        check(
            config.hidden_act == "gelu",
            where=f"{where}: hidden_act",
            found=config.hidden_act,
            expected=f"gelu, which the masked-word head of {architecture} takes",
        )


def read_huggingface_config(values: Mapping[str, Any], where: str) -> tuple[str, ModelConfig]:
    """Return the `model_type` and the model of a config.json, an untrusted file.

    The heads keep their default, because only the weights show them. `where` is the file's name.
    Raises `UserError`, naming the field, if a field is unknown, out of its range, or if bertjax
    computes it differently.
    """
    # The original's bert_config.json has no such field, and this function reads it too.
    architecture = values.get("model_type", "bert")
    _check_one_of(architecture, MODULES, f"{where}: model_type")
    for name, accepted in ONLY_VALUES.items():
        value = values.get(name)
        check(
            value in accepted,
            where=f"{where}: {name}",
            found=repr(value),
            expected=f"{accepted[0]!r}: bertjax computes nothing else",
        )
    # null stands for the default, as in transformers.
    present = {name: value for name, value in values.items() if value is not None}
    values = DEFAULTS[architecture] | present
    activation = values.get("hidden_act", "gelu")
    _check_one_of(activation, ACTIVATIONS, f"{where}: hidden_act")
    fields = {name: values[name] for name in SAME_NAME_FIELDS if name in values}
    fields["hidden_act"] = ACTIVATIONS[activation]
    fields |= _architecture_fields(architecture, values, where)
    try:
        return architecture, from_dict(ModelConfig, fields, where)
    except UserError as error:
        # A value of another type is named with the file, one out of its range by our field alone.
        message = str(error)
        if not message.startswith(where):
            message = f"{where}: {message}"
        raise UserError(message) from error


def _check_one_of(value: object, names: Collection[str], where: str) -> None:
    check(
        isinstance(value, str) and value in names,  # a list of an untrusted file has no hash
        where=where,
        found=repr(value),
        expected=f"one of {', '.join(names)}",
    )


def _architecture_fields(
    architecture: str, values: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that make it this architecture."""
    if architecture == "roberta":
        pad = values.get("pad_token_id", 1)
        check(
            type(pad) is int and pad >= 0,  # JSON's true is an int to isinstance
            where=f"{where}: pad_token_id",
            found=repr(pad),
            expected="an id",
        )
        # RoBERTa's positions begin after its padding id, whose row is not a position.
        # See `create_position_ids_from_input_ids` in transformers.
        return {"position_offset": pad + 1}
    if architecture == "albert":
        return {"embedding_size": values["embedding_size"], "share_layers": True}
    if architecture == "electra" and values["embedding_size"] != values["hidden_size"]:
        return {"embedding_size": values["embedding_size"]}
    return {}


def huggingface_config(
    architecture: str, config: ModelConfig, pad_id: int, head: TaskHead | None = None
) -> dict[str, Any]:
    """Return the config.json of a model, fine-tuned where there is a `head`.

    `pad_id` is the tokenizer's padding id; `UserError` where RoBERTa's positions need another.
    """
    if config.position_offset:
        padding = config.position_offset - 1
        check(
            pad_id == padding,
            where="the tokenizer's padding id",
            found=pad_id,
            expected=(f"{padding}, one below model.position_offset, as RoBERTa counts positions"),
        )
    values = {name: getattr(config, name) for name in SAME_NAME_FIELDS} | {
        "architectures": [_class_of(architecture, config)],
        "dtype": "float32",  # of the weights, whatever the model computes in
        "hidden_act": _foreign_activation(config),
        "model_type": architecture,
        "pad_token_id": pad_id,
    }
    if architecture in ("albert", "electra"):
        values["embedding_size"] = config.embedding_width
    if head is not None:
        values |= _task_values(architecture, config, head)
    return values


def _class_of(architecture: str, config: ModelConfig) -> str:
    """Return the class of `transformers` with most of the model's heads."""
    classes = ARCHITECTURES[architecture].items()
    return next(name for name, heads in classes if heads <= set(config.heads))


def _foreign_activation(config: ModelConfig) -> str:
    return next(name for name, own in ACTIVATIONS.items() if own == config.hidden_act)


def _task_values(architecture: str, config: ModelConfig, head: TaskHead) -> dict[str, Any]:
    """Return the fields of config.json that a fine-tuned model has of its own."""
    values: dict[str, Any] = {
        "architectures": [f"{architecture.capitalize()}For{head.transformers_class}"]
    }
    if head.transformers_class in LABELLED_CLASSES:
        names = head.labels or ("LABEL_0",)  # the name that transformers gives to one number
        values["id2label"] = {str(number): label for number, label in enumerate(names)}
        values["label2id"] = {label: number for number, label in enumerate(names)}
    if head.problem_type:
        values["problem_type"] = head.problem_type
    if architecture == "albert":
        # It has a rate of its own for the head, 0.1 by default; bertjax takes the hidden one.
        values["classifier_dropout_prob"] = config.hidden_dropout_prob
    return values
