"""Import and export of model folders of `transformers`: config.json and weights."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from etils import epath

from bertjax.config import Head, ModelConfig
from bertjax.data.tokenizers.export_check import check_export
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, disk_errors
from bertjax.given_files import place_of
from bertjax.interop.checkpoints.dropped_tensors import drop_tensors
from bertjax.interop.checkpoints.families.family import TASK_HEAD, Family
from bertjax.interop.checkpoints.families.matching import (
    class_of,
    decoder_family,
    exported_heads,
    matching_family,
)
from bertjax.interop.checkpoints.families.table import (
    DECODERS,
    FAMILIES,
    check_config,
    family_of,
    read_config,
)
from bertjax.interop.checkpoints.model_config import check_task_class, huggingface_config
from bertjax.interop.checkpoints.safetensors_file import MAX_SHARD_BYTES, write_safetensors
from bertjax.interop.checkpoints.tensor_mapping import (
    Tensors,
    check_mlm,
    export_tensors,
    heads_in,
    import_params,
    is_tied,
    names_found,
    resolve_copies,
    without_groups,
)
from bertjax.interop.checkpoints.tensor_names import Dialect, flax_dialect, torch_dialect
from bertjax.interop.checkpoints.weight_files import open_weights
from bertjax.model.functional import Params
from bertjax.storage import read_json, write_whole
from bertjax.tasks.task_head import TaskHead

CONFIG = "config.json"

log = logging.getLogger("bertjax")


def load(
    folder: epath.PathLike, drop: Sequence[str] = (), *, config_name: str = CONFIG
) -> tuple[ModelConfig, dict[str, Any]]:
    """Return configuration and parameters of a model of `transformers`.

    Its weights are `model.safetensors`, `pytorch_model.bin` or, of version 4, `flax_model.msgpack`,
    in one file or in shards. Tensors that match an entry of `drop` are left out
    (`drop_patterns.select`). The parameters are float32 numpy arrays named as in
    `docs/parameters.md`; the model has the heads for which there are weights. Raises `UserError`,
    naming the field or tensor, if it is missing, damaged, not part of the model, or needs something
    that bertjax does not compute.
    """
    path = place_of(folder)
    values, where = read_json(path / config_name), str(path / config_name)
    family = family_of(values, where)
    config = read_config(family, values, where)
    tensors, dialect_of = open_weights(path)
    dialect = _dialect_of_form(family, tensors, dialect_of)
    # Dropped first, since `drop` has the names that stand in the file.
    complete = resolve_copies(tensors, dialect)
    tensors = resolve_copies(drop_tensors(config, dialect, tensors, drop), dialect)
    # A class for a task may lack the head for masked words; the weights show which heads there are.
    of_task = _is_of_task(family, values, complete)
    config = dataclasses.replace(config, heads=heads_in(config, tensors, dialect, of_task=of_task))
    if "mlm" in config.heads and not is_tied(tensors, dialect):
        config = dataclasses.replace(config, mlm_tied=False)
    check_config(family, values, where, config)
    for kind in _masked_lm_classes(family, values):
        check_mlm(config, complete, dialect, kind)
    return config, import_params(config, dialect, tensors)


def _masked_lm_classes(family: Family, values: Mapping[str, Any]) -> list[str]:
    """Return the classes of a config.json, an untrusted file, that have the mlm head alone."""
    known = [kind for kind, heads in family.classes.items() if heads == {"mlm"}]
    return [kind for kind in known if kind in _named_classes(values)]


def _named_classes(values: Mapping[str, Any]) -> list[Any]:
    named = values.get("architectures")
    return named if isinstance(named, list) else []


def _is_of_task(family: Family, values: Mapping[str, Any], tensors: Tensors) -> bool:
    """Return whether a model folder is of a class for a task, as its class or a tensor tells."""
    if any(f"{family.task_class}For{task}" in _named_classes(values) for task in family.tasks):
        return True
    last_layers = [modules[TASK_HEAD] for modules in family.tasks.values()]
    return any(name.startswith(f"{layer}.") for layer in last_layers for name in tensors.shapes)


def _dialect_of_form(
    family: Family, tensors: Tensors, dialect_of: Callable[[str, str, int], Dialect]
) -> Dialect:
    """Return the names of the family that most of the tensors have."""
    check(
        dialect_of is not flax_dialect or family.in_flax,
        where=tensors.where,
        found=f"weights of Flax for {family.name}",
        expected="weights of PyTorch",
    )
    dialects = [dialect_of(family.name, "", form) for form in range(len(family.names))]
    # Of several with as many, the first.
    return max(dialects, key=lambda dialect: names_found(tensors, dialect))


def save(
    folder: epath.PathLike,
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer | None = None,
    *,
    head: TaskHead | None = None,
    decoder: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that `AutoModel.from_pretrained` reads, and `AutoTokenizer` with `tokenizer`.

    With a `head`, at `params["task_head"]`, it is the fine-tuned model that
    `AutoModelForSequenceClassification`, `…TokenClassification`, `…QuestionAnswering` or
    `…MultipleChoice` reads, and pretraining's heads are left out. With `decoder` it is the causal
    model that `AutoModelForCausalLM` reads: the same encoder and head for words, where a token sees
    those up to itself and its logits are those of the next one. The family is the first one that
    computes what `config` says; `UserError` where there is none, where it has no such class, and
    where `AutoTokenizer` would read other ids. Weights of more than `max_shard_bytes` are cut into
    several files with an index. config.json is written last, so that a folder without one is
    unfinished.
    """
    path = place_of(folder)
    check(
        max_shard_bytes > 0,
        where="max_shard_bytes",
        found=max_shard_bytes,
        expected="a number above 0",
    )
    families = DECODERS if decoder else FAMILIES
    if decoder:
        family = decoder_family(config)
        config = dataclasses.replace(config, heads=("mlm",))
    else:
        family = matching_family(config, head)
    if head is not None:
        check_task_class(family, head)
    config, params = _keep_heads(family, config, params, head)
    # Without a tokenizer the positions tell RoBERTa's padding id; that of the others is 0.
    pad_id = tokenizer.pad_id if tokenizer else max(config.position_offset - 1, 0)
    values = huggingface_config(family.name, config, pad_id, head, families)
    if tokenizer is not None:
        for name, role in family.special_ids.items():
            values[name] = getattr(tokenizer, f"{role}_id")
    # Sorted like the output of save_pretrained, so that two exports can be compared line by line.
    written = (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
    if tokenizer is not None:
        check_export(tokenizer, path, files={CONFIG: written})
        tokenizer.save(path, config.max_length)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    # `BertModel` and its like are the encoder alone, whose names have no prefix.
    prefixed = head is not None or bool(family.classes[class_of(family, config)])
    task_class = head.transformers_class if head else ""
    dialect = torch_dialect(family.name, task_class, families=families)
    tensors = export_tensors(params, dialect, prefixed=prefixed)
    write_safetensors(path, tensors, max_shard_bytes)
    write_whole(path / CONFIG, written)


def _keep_heads(
    family: Family, config: ModelConfig, params: Params, head: TaskHead | None
) -> tuple[ModelConfig, Params]:
    """Return the model with the heads that the exported class has."""
    heads = exported_heads(family, config, head)
    if head is None:
        for name in set(config.heads) - set(heads):
            where = "in no class" if name == "rtd" else "only in the classes for tasks"
            log.warning("model.heads: %s is left out, %s has it %s", name, family.name, where)
    if not family.has_class:
        log.warning(
            "transformers has no class of %s: the names are those of its authors, whose code reads "
            "the folder",
            family.name,
        )
    left_out = set(get_args(Head)) - set(heads)
    return dataclasses.replace(config, heads=heads), without_groups(params, left_out)
