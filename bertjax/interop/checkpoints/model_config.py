"""config.json of `transformers` and `ModelConfig`: what of the one is what of the other, and what
is refused.
"""

from collections.abc import Mapping
from typing import Any

from bertjax.config import ModelConfig, from_dict
from bertjax.errors import UserError, check
from bertjax.interop.checkpoints.tensor_names import MODULES
from bertjax.tasks.task_head import TaskHead

# Theirs -> ours; where two of theirs mean the same, the first is written.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
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
# What they take for a field that config.json leaves out, where it is not what `ModelConfig` takes.
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
# Fields with which their model computes something that ours does not; any other value than these is
# refused.
ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "transformers_weights": (None,),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "num_hidden_groups": (1, None),
    "inner_group_num": (1, None),
}
# Their classes by the heads that a class has, the one with most of a model's is its own.
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
# Their classes with the names of a head's outputs in config.json.
LABELLED_CLASSES = ("SequenceClassification", "TokenClassification")
GELU_HEADS = ("electra", "roberta")  # whose masked-word head takes gelu whatever hidden_act says


def huggingface_architecture(config: ModelConfig) -> str:
    """The `model_type` of `transformers` that computes what `config` says; `UserError` where none
    does.
    """
    signs = {
        "albert": config.share_layers,
        "roberta": config.position_offset > 0,
        "electra": config.embedding_size > 0 and not config.share_layers,
    }
    check(
        not config.local_attention,
        where="model.local_attention",
        found=config.local_attention,
        expected="0: no BERT there has windows",
    )
    found = [name for name, sign in signs.items() if sign]
    check(
        len(found) <= 1,
        where="model",
        found=f"what makes it {' and '.join(found)} at once",
        expected="one architecture of transformers",
    )
    architecture = found[0] if found else "bert"
    projects = architecture != "albert" or config.embedding_size > 0
    check(
        projects,
        where="model.embedding_size",
        found=0,
        expected="a width: ALBERT, which shares layers, always projects its embeddings",
    )
    for head in config.heads:
        known = head in MODULES[architecture]
        check(
            known,
            where="model.heads",
            found=head,
            expected=f"a head of {architecture}, which the other settings make it",
        )
    if architecture == "electra":
        width = config.embedding_size
        check(
            width != config.hidden_size,
            where="model.embedding_size",
            found=width,
            expected="another than model.hidden_size, for ELECTRA",
        )
    check_mlm_activation(architecture, config, "model")
    return architecture


def check_mlm_activation(architecture: str, config: ModelConfig, where: str) -> None:
    """Raise `UserError` where their masked-word head computes something else than ours."""
    good = (
        architecture not in GELU_HEADS or "mlm" not in config.heads or config.hidden_act == "gelu"
    )
    check(
        good,
        where=f"{where}: hidden_act",
        found=config.hidden_act,
        expected=f"gelu, which the masked-word head of {architecture} takes",
    )


def read_huggingface_config(values: Mapping[str, Any], where: str) -> tuple[str, ModelConfig]:
    """The architecture and the model, its heads left open, of a config.json."""
    architecture = values.get("model_type", "bert")
    known = isinstance(architecture, str) and architecture in MODULES
    check(
        known,
        where=f"{where}: model_type",
        found=repr(architecture),
        expected=f"one of {', '.join(MODULES)}",
    )
    for name, plain in ONLY_VALUES.items():
        value = values.get(name)
        check(
            value in plain,
            where=f"{where}: {name}",
            found=repr(value),
            expected=f"{plain[0]!r}: bertjax computes nothing else",
        )
    values = DEFAULTS[architecture] | {
        name: value for name, value in values.items() if value is not None
    }
    activation = values.get("hidden_act", "gelu")
    known = isinstance(activation, str) and activation in ACTIVATIONS
    check(
        known,
        where=f"{where}: hidden_act",
        found=repr(activation),
        expected=f"one of {', '.join(ACTIVATIONS)}",
    )
    taken = {name: values[name] for name in SAME_NAME_FIELDS if name in values} | {
        "hidden_act": ACTIVATIONS[activation]
    }
    if architecture == "roberta":
        pad = values.get("pad_token_id", 1)
        check(
            type(pad) is int and pad >= 0,
            where=f"{where}: pad_token_id",
            found=repr(pad),
            expected="an id",
        )
        taken["position_offset"] = pad + 1
    if architecture == "albert":
        taken |= {"embedding_size": values["embedding_size"], "share_layers": True}
    if architecture == "electra" and values["embedding_size"] != values["hidden_size"]:
        taken["embedding_size"] = values["embedding_size"]
    try:
        return architecture, from_dict(ModelConfig, taken, where)
    except UserError as error:  # a value out of its range is named by our field alone
        raise UserError(
            str(error) if str(error).startswith(where) else f"{where}: {error}"
        ) from error


def huggingface_config(
    architecture: str, config: ModelConfig, pad_id: int, head: TaskHead | None = None
) -> dict[str, Any]:
    """The config.json of a model, fine-tuned where there is a `head`.

    Raises `UserError` where `pad_id` is not that which RoBERTa's positions go by.
    """
    if config.position_offset:
        expected = f"{config.position_offset - 1}, one below model.position_offset, as RoBERTa counts positions"
        check(
            pad_id == config.position_offset - 1,
            where="the tokenizer's padding id",
            found=pad_id,
            expected=expected,
        )
    name = next(
        name for name, heads in ARCHITECTURES[architecture].items() if heads <= set(config.heads)
    )
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.hidden_act)
    values = {name: getattr(config, name) for name in SAME_NAME_FIELDS} | {
        "architectures": [name],
        "dtype": "float32",
        "hidden_act": activation,
        "model_type": architecture,
        "pad_token_id": pad_id,
    }
    if architecture in ("albert", "electra"):
        values["embedding_size"] = config.embedding_width
    return values | (_task_values(architecture, config, head) if head else {})


def _task_values(architecture: str, config: ModelConfig, head: TaskHead) -> dict[str, Any]:
    """Return the fields of config.json that a fine-tuned model has of its own."""
    values: dict[str, Any] = {
        "architectures": [f"{architecture.capitalize()}For{head.transformers_class}"]
    }
    if head.transformers_class in LABELLED_CLASSES:
        names = head.labels or ("LABEL_0",)  # which they call the output of a regression
        values["id2label"] = {str(number): label for number, label in enumerate(names)}
        values["label2id"] = {label: number for number, label in enumerate(names)}
    if head.problem_type:
        values["problem_type"] = head.problem_type
    if architecture == "albert":
        # Theirs has a rate for the head alone, 0.1 by default; ours takes the hidden one.
        values["classifier_dropout_prob"] = config.hidden_dropout_prob
    return values
