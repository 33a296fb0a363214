"""Import and export of model folders of `transformers`: config.json and weights."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, get_args

from etils import epath

from bertjax.config import Head, ModelConfig
from bertjax.data.tokenizers.export_check import check_export
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, disk_errors
from bertjax.given_files import place_of
from bertjax.interop.checkpoints.dropped_tensors import drop_tensors
from bertjax.interop.checkpoints.model_config import (
    check_mlm_activation,
    huggingface_architecture,
    huggingface_config,
    read_huggingface_config,
)
from bertjax.interop.checkpoints.safetensors_file import MAX_SHARD_BYTES, write_safetensors
from bertjax.interop.checkpoints.tensor_mapping import (
    export_tensors,
    heads_in,
    import_params,
    resolve_copies,
    without_groups,
)
from bertjax.interop.checkpoints.tensor_names import torch_dialect
from bertjax.interop.checkpoints.weight_files import open_weights
from bertjax.model.functional import Params
from bertjax.storage import read_json, write_whole
from bertjax.tasks.task_head import TaskHead

CONFIG = "config.json"


def load(
    folder: epath.PathLike, drop: Sequence[str] = (), *, config_name: str = CONFIG
) -> tuple[ModelConfig, dict[str, Any]]:
    """Return configuration and parameters of a BERT, RoBERTa, ELECTRA or ALBERT of `transformers`.

    Its weights are `model.safetensors`, `pytorch_model.bin` or, of version 4, `flax_model.msgpack`,
    in one file or in shards. Tensors that match an entry of `drop` are left out
    (`drop_patterns.select`). The parameters are float32 numpy arrays named as in
    `docs/parameters.md`; the model has the heads for which there are weights. Raises `UserError`,
    naming the field or tensor, if it is missing, damaged, not part of the model, or needs something
    that bertjax does not compute.
    """
    path = place_of(folder)
    values, where = read_json(path / config_name), str(path / config_name)
    architecture, config = read_huggingface_config(values, where)
    tensors, dialect_of = open_weights(path)
    dialect = dialect_of(architecture)
    # Dropped first, since `drop` has the names that stand in the file.
    tensors = resolve_copies(drop_tensors(config, dialect, tensors, drop), dialect)
    # config.json only names a class; the weights show which heads the model has.
    config = dataclasses.replace(config, heads=heads_in(tensors, dialect))
    check_mlm_activation(architecture, config, where)
    # bertjax's masked-word head has no matrix of its own, only the word embeddings.
    tied = values.get("tie_word_embeddings", True)
    check(
        tied is True or "mlm" not in config.heads,
        where=f"{where}: tie_word_embeddings",
        found=repr(tied),
        expected="True, for its head",
    )
    return config, import_params(config, dialect, tensors)


def save(
    folder: epath.PathLike,
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer | None = None,
    *,
    head: TaskHead | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that `AutoModel.from_pretrained` reads, and `AutoTokenizer` with `tokenizer`.

    With a `head`, at `params["task_head"]`, it is the fine-tuned model that
    `AutoModelForSequenceClassification`, `…TokenClassification`, `…QuestionAnswering` or
    `…MultipleChoice` reads, and pretraining's heads are left out. The architecture is the one of
    `transformers` that computes what `config` says; `UserError` where there is none, and where
    `AutoTokenizer` would read other ids. Weights of
    more than `max_shard_bytes` are cut into several files with an index. config.json is written
    last, so that a folder without one is unfinished.
    """
    path = place_of(folder)
    check(
        max_shard_bytes > 0,
        where="max_shard_bytes",
        found=max_shard_bytes,
        expected="a number above 0",
    )
    if head is not None:
        config, params = _keep_heads_for_task(config, params, head)
    architecture = huggingface_architecture(config)
    # Without a tokenizer the positions tell RoBERTa's padding id; that of the others is 0.
    pad_id = tokenizer.pad_id if tokenizer else max(config.position_offset - 1, 0)
    values = huggingface_config(architecture, config, pad_id, head)
    # Sorted like the output of save_pretrained, so that two exports can be compared line by line.
    written = (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
    if tokenizer is not None:
        check_export(tokenizer, path, files={CONFIG: written})
        tokenizer.save(path, config.max_length)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    # `BertModel` and its like are the encoder alone, whose names have no prefix.
    prefixed = not values["architectures"][0].endswith("Model")
    dialect = torch_dialect(architecture, head.transformers_class if head else "")
    tensors = export_tensors(params, dialect, prefixed=prefixed)
    write_safetensors(path, tensors, max_shard_bytes)
    write_whole(path / CONFIG, written)


def _keep_heads_for_task(
    config: ModelConfig, params: Params, head: TaskHead
) -> tuple[ModelConfig, Params]:
    """Return the model with the heads that the class of `transformers` for the task has."""
    heads: tuple[Head, ...] = () if head.on_tokens else ("pooler",)
    left_out = set(get_args(Head)) - set(heads)
    return dataclasses.replace(config, heads=heads), without_groups(params, left_out)
