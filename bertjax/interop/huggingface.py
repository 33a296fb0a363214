"""Model folders of `transformers`: config.json and PyTorch weights, in and out."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from bertjax.config import ModelConfig, from_dict
from bertjax.data.files import read_json, write_whole
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import check, disk_errors
from bertjax.interop.names import MODULES, torch_dialect
from bertjax.interop.tensors import give, heads_in, take, without
from bertjax.interop.weight_files import MAX_SHARD_BYTES, open_weights, write_safetensors

CONFIG = "config.json"
# Theirs -> ours; where two of theirs mean the same, the first is written.
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
SAME_NAME = (
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
# Fields with which their model computes something that ours does not; any other value than these is refused.
PLAIN = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "tie_word_embeddings": (True, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "num_hidden_groups": (1, None),
    "inner_group_num": (1, None),
}
ARCHITECTURES = {
    "bert": ("BertForPreTraining", "BertForMaskedLM", "BertModel"),
    "roberta": ("", "RobertaForMaskedLM", "RobertaModel"),
    "electra": ("", "ElectraForMaskedLM", "ElectraModel"),
    "albert": ("AlbertForPreTraining", "AlbertForMaskedLM", "AlbertModel"),
}


def load(folder: epath.PathLike, drop: Sequence[str] = ()) -> tuple[ModelConfig, dict[str, Any]]:
    """Configuration and parameters of a folder of `transformers`: BERT, RoBERTa, ELECTRA or ALBERT.

    Its weights are `model.safetensors`, `pytorch_model.bin` or, of version 4, `flax_model.msgpack`, whole or in
    shards. Tensors whose names begin with an entry of `drop` are left out. The parameters are float32 numpy
    arrays named as in `docs/parameters.md`; the heads are those that the weights hold. Raises `UserError` naming
    the field or tensor that is missing, damaged, beyond the model, or asks for what bertjax does not compute.
    """
    path = epath.Path(folder)
    architecture, config = read_config(read_json(path / CONFIG), str(path / CONFIG))
    tensors, dialect_of = open_weights(path)
    dialect = dialect_of(architecture)
    tensors = without(tensors, drop)
    config = dataclasses.replace(config, heads=heads_in(tensors, dialect))
    return config, take(config, dialect, tensors)


def save(
    folder: epath.PathLike,
    config: ModelConfig,
    params: Any,
    tokenizer: Tokenizer | None = None,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that `AutoModel.from_pretrained` reads, and `AutoTokenizer` where there is a tokenizer.

    The architecture is the one of `transformers` that computes what `config` says; `UserError` where there is
    none. config.json is written last. Weights beyond `max_shard_bytes` go to several files with an index.
    """
    path = epath.Path(folder)
    architecture = architecture_of(config)
    pad = tokenizer.pad_id if tokenizer else max(config.position_offset - 1, 0)
    values = config_values(architecture, config, pad)
    if tokenizer is not None:
        tokenizer.save(path, config.max_length)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    based = not values["architectures"][0].endswith("Model")
    write_safetensors(path, give(params, torch_dialect(architecture), based=based), max_shard_bytes)
    write_whole(path / CONFIG, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())


def architecture_of(config: ModelConfig) -> str:
    """The `model_type` of `transformers` that computes what `config` says; `UserError` where none does."""
    signs = {
        "albert": config.share_layers,
        "roberta": config.position_offset > 0,
        "electra": config.embedding_size > 0 and not config.share_layers,
    }
    found = [name for name, sign in signs.items() if sign]
    check(len(found) <= 1, "model", f"what makes it {' and '.join(found)} at once", "one architecture of transformers")
    architecture = found[0] if found else "bert"
    projects = architecture != "albert" or config.embedding_size > 0
    check(projects, "model.embedding_size", 0, "a width: ALBERT, which shares layers, always projects its embeddings")
    for head in config.heads:
        known = head in MODULES[architecture]
        check(known, "model.heads", head, f"a head of {architecture}, which the other settings make it")
    if architecture == "electra" and "mlm" in config.heads:
        check(config.hidden_act == "gelu", "model.hidden_act", config.hidden_act, "gelu, as ELECTRA's masked-word head")
    return architecture


def read_config(values: Mapping[str, Any], where: str) -> tuple[str, ModelConfig]:
    """The architecture and the model, its heads left open, of a config.json."""
    architecture = values.get("model_type", "bert")
    known = isinstance(architecture, str) and architecture in MODULES
    check(known, f"{where}: model_type", repr(architecture), f"one of {', '.join(MODULES)}")
    for name, plain in PLAIN.items():
        value = values.get(name)
        check(value in plain, f"{where}: {name}", repr(value), f"{plain[0]!r}: bertjax computes nothing else")
    values = DEFAULTS[architecture] | {name: value for name, value in values.items() if value is not None}
    activation = values.get("hidden_act", "gelu")
    known = isinstance(activation, str) and activation in ACTIVATIONS
    check(known, f"{where}: hidden_act", repr(activation), f"one of {', '.join(ACTIVATIONS)}")
    taken = {name: values[name] for name in SAME_NAME if name in values} | {"hidden_act": ACTIVATIONS[activation]}
    if architecture == "roberta":
        pad = values.get("pad_token_id", 1)
        check(type(pad) is int and pad >= 0, f"{where}: pad_token_id", repr(pad), "an id")
        taken["position_offset"] = pad + 1
    if architecture == "albert":
        taken |= {"embedding_size": values["embedding_size"], "share_layers": True}
    if architecture == "electra" and values["embedding_size"] != values["hidden_size"]:
        taken["embedding_size"] = values["embedding_size"]
    return architecture, from_dict(ModelConfig, taken, where)


def config_values(architecture: str, config: ModelConfig, pad_id: int) -> dict[str, Any]:
    if config.position_offset:
        expected = f"{config.position_offset - 1}, one below model.position_offset, as RoBERTa counts positions"
        check(pad_id == config.position_offset - 1, "the tokenizer's padding id", pad_id, expected)
    pretraining, masked, plain = ARCHITECTURES[architecture]
    heads = set(config.heads)
    name = (pretraining if {"nsp", "mlm"} <= heads else "") or (masked if "mlm" in heads else plain)
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.hidden_act)
    values = {name: getattr(config, name) for name in SAME_NAME} | {
        "architectures": [name],
        "dtype": "float32",
        "hidden_act": activation,
        "model_type": architecture,
        "pad_token_id": pad_id,
    }
    if architecture in ("albert", "electra"):
        values["embedding_size"] = config.embedding_width
    return values
