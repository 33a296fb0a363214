"""The config.json of an exported model."""

from collections.abc import Mapping
from typing import Any

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.interop.checkpoints.families.family import Family
from bertjax.interop.checkpoints.families.matching import class_of
from bertjax.interop.checkpoints.families.table import FAMILIES, write_config
from bertjax.tasks.task_head import TaskHead

# Classes of transformers with the names of a head's outputs in config.json.
LABELLED_CLASSES = ("SequenceClassification", "TokenClassification")


def huggingface_config(
    family: str,
    config: ModelConfig,
    pad_id: int,
    head: TaskHead | None = None,
    families: Mapping[str, Family] = FAMILIES,
) -> dict[str, Any]:
    """Return the config.json of a model of the family, fine-tuned where there is a `head`.

    `pad_id` is the tokenizer's padding id; `UserError` where the positions need another. `families`
    is the table of families.
    """
    if config.position_offset:
        padding = config.position_offset - 1
        check(
            pad_id == padding,
            where="the tokenizer's padding id",
            found=pad_id,
            expected=f"{padding}, one below model.position_offset, as {family} counts positions",
        )
    described = families[family]
    values = write_config(described, config) | {
        "dtype": "float32",  # of the weights, whatever the model computes in
        "model_type": described.model_type or family,
        "pad_token_id": pad_id,
    }
    name = class_of(described, config)
    if head is not None:
        name = f"{described.task_class}For{head.transformers_class}"
        values |= _task_values(described, config, head)
    if name:
        values["architectures"] = [name]
    return values


def check_task_class(family: Family, head: TaskHead) -> None:
    """Raise `UserError` where no class of the family computes what a fine-tuned model does."""
    check(
        head.transformers_class in family.tasks,
        where=f"task {head.task}",
        found=f"a head of {head.transformers_class}",
        expected=f"one of {', '.join(family.tasks) or 'none'}: "
        f"{family.name} has no such class, or one with more layers",
    )


def _task_values(family: Family, config: ModelConfig, head: TaskHead) -> dict[str, Any]:
    """Return the fields of config.json that a fine-tuned model has of its own."""
    values: dict[str, Any] = {}
    if head.transformers_class in LABELLED_CLASSES:
        names = head.labels or ("LABEL_0",)  # the name that transformers gives to one number
        values["id2label"] = {str(number): label for number, label in enumerate(names)}
        values["label2id"] = {label: number for number, label in enumerate(names)}
    if head.problem_type:
        values["problem_type"] = head.problem_type
    return values | dict.fromkeys(family.head_dropout, config.hidden_dropout_prob)
