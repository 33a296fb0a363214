"""The table of the kinds of task, and how tasks are opened from data or from a checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertjax.config import Config, FinetuneConfig, Head
from bertjax.config.finetune import task_parts
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.json_values import shown
from bertjax.tasks.classification.kind import ClassificationKind
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.kind import Entry, Kind
from bertjax.tasks.metric_table import (
    OPTION,
    Scale,
    check_class,
    check_metric,
    chosen_metrics,
    metric_named,
)
from bertjax.tasks.multiple_choice.kind import ChoiceKind
from bertjax.tasks.question_answering.kind import SpansKind
from bertjax.tasks.seq2seq.kind import Seq2SeqKind
from bertjax.tasks.tagging.kind import TaggingKind
from bertjax.tasks.task import Task

# A kind has three type parameters: those of its tasks, examples and predictions.
_ALL: tuple[Kind[Any, Any, Any], ...] = (
    ClassificationKind(),
    TaggingKind(),
    SpansKind(),
    ChoiceKind(),
    Seq2SeqKind(),
)
KINDS: Mapping[str, Kind[Any, Any, Any]] = {kind.name: kind for kind in _ALL}
"""The kinds by their names in `finetune.tasks` and in checkpoints."""
HEADS: tuple[Head, ...] = ("pooler", "mlm", "nsp")
"""The order in which configurations list a model's heads."""


@dataclass(frozen=True)
class OpenedTask:
    """A task with its data."""

    entry: Entry
    task: Task
    splits: Mapping[str, list[Any]]
    """Examples by split: `train`, then the validation splits, of which the first is the main one
    (`validation_splits`).
    """


def kind_of(task: Task) -> Kind[Any, Any, Any]:
    """Return the kind of a task, by its class."""
    for kind in KINDS.values():
        if isinstance(task, kind.task_classes):
            return kind
    raise TypeError(f"{type(task).__name__} is of no kind of task")


def entry_of(text: str, options: FinetuneConfig) -> Entry:
    """Return the entry that `text` of `finetune.tasks` stands for, with the location of its data.

    `text` is NAME, NAME:KIND or NAME:KIND=PLACE. Raises `UserError` for an unknown name that is
    given without a kind, and for an unknown kind.
    """
    name, kind, place = task_parts(text)
    kind_name = kind or ""
    known = _kind_knowing(name)
    if known:
        name = known.canonical_name(name)
        kind_name = kind_name or known.name
    data_sets = [data_set for kind in KINDS.values() for data_set in kind.data_sets]
    check(
        kind_name in KINDS,
        where="finetune.tasks",
        found=text,
        expected=f"one of the names {', '.join(data_sets)};"
        f" or NAME:KIND=PLACE with a KIND of {', '.join(KINDS)}",
    )
    files = {
        "train": options.train_files,
        "validation": options.validation_files,
        "test": options.test_files,
    }
    given_files = {split: names for split, names in files.items() if names}
    location = DataLocation(
        place, given_files, options.columns, encoding=options.encoding, form=options.file_form
    )
    return Entry(name, kind_name, location)


def _kind_knowing(name: str) -> Kind[Any, Any, Any] | None:
    for kind in KINDS.values():
        if kind.knows(name):
            return kind
    return None


def read_split(entry: Entry, split: str, options: FinetuneConfig, labelled: bool) -> list[Any]:
    """Return the examples of a split of a task; if `labelled`, each has a label.

    Raises `UserError` if there is no example, or if one of them is malformed.
    """
    examples = KINDS[entry.kind].read_split(entry, split, options, labelled)
    check(
        len(examples) > 0,
        where=f"{entry.location.path}, split {split}",
        found="no example",
        expected="one or more",
    )
    return examples


def open_tasks(config: Config, tokenizer: Tokenizer) -> tuple[OpenedTask, ...]:
    """Return the tasks of `config.finetune` with their training and validation examples.

    Raises `UserError` for a name or kind that is not known, and for malformed data.
    """
    options = config.finetune
    entries = [entry_of(text, options) for text in options.tasks]
    names = [entry.name for entry in entries]
    # The configuration has compared the texts as they were written. That SST-2 and sst2 are the
    # same task is seen only here, where the names are canonical.
    check(
        len(set(names)) == len(names),
        where="finetune.tasks",
        found=", ".join(names),
        expected="each task once",
    )
    # Names are compared before any file is read; classes are known from the files only.
    for entry in entries:
        _check_metrics(entry, options)
    first_given = options.train_files or options.validation_files or options.test_files
    if len(entries) != 1:
        check(
            not first_given,
            where="finetune.train_files",
            found=first_given,
            expected="none where there are several tasks",
        )
    return tuple(_open(entry, config, tokenizer) for entry in entries)


def _open(entry: Entry, config: Config, tokenizer: Tokenizer) -> OpenedTask:
    kind, options = KINDS[entry.kind], config.finetune
    kind.check_options(entry, options)
    splits = {
        split: read_split(entry, split, options, labelled=True)
        for split in ("train", *validation_splits(entry))
    }
    # The task's labels come from all training examples: among those drawn below, a rare label may
    # be missing.
    task = kind.make_task(entry.name, splits["train"], options, tokenizer)
    task = with_chosen_metrics(task, options)
    for name in validation_splits(entry):
        kind.check_split(entry, name, task, splits[name])
        check_metric_counts(task, splits[name], options)
    splits["train"] = _drawn(splits["train"], options.max_train_examples, config.seed)
    return OpenedTask(entry, task, splits)


def _check_metrics(entry: Entry, options: FinetuneConfig) -> None:
    """Raise `UserError` if `finetune.metric` names a metric that tasks of this type do not have."""
    table = KINDS[entry.kind].choosable_metrics(entry, options)
    for text in chosen_for(entry.name, options):
        check_metric(entry.name, text, table)


def with_chosen_metrics(task: Task, options: FinetuneConfig) -> Task:
    """Return the task with the metrics that `finetune.metric` names, if it names any.

    Other options that change figures alone are put into it too (`Kind.for_evaluation`).

    Raises `UserError` for a metric or a class that the task does not have.
    """
    kind = kind_of(task)
    task = kind.for_evaluation(task, options)
    chosen = chosen_for(task.name, options)
    if not chosen:
        return task
    table, classes = kind.task_metrics(task), kind.metric_classes(task)
    for text in chosen:
        check_metric(task.name, text, table)
        check_class(task.name, text, classes)
    return kind.with_metrics(task, chosen)


def check_metric_counts(task: Task, examples: list[Any], options: FinetuneConfig) -> None:
    """Raise `UserError` if no validation example has the class of a metric of one class.

    The metrics are the one that chooses checkpoints, and those that `options` name.
    """
    kind = kind_of(task)
    for metric in dict.fromkeys((task.metric, *chosen_for(task.name, options))):
        label = kind.metric_class(task, metric)
        check(
            label is None or label in kind.classes_in(task, examples),
            where=OPTION,
            found=f"{metric}, for {task.name}, and no validation example of {label}",
            expected="one or more: without them the metric is 0 whatever the model does",
        )


def chosen_for(name: str, options: FinetuneConfig) -> tuple[str, ...]:
    """Return the metrics that `finetune.metric` names for the task `name`."""
    spellings = {}
    for text in options.tasks:
        task = entry_of(text, options).name
        spellings[task] = task
        spellings[task_parts(text).name] = task
    return chosen_metrics(options.metric, name, spellings)


def scale_of(kind: str, metric: str) -> Scale | None:
    """Return the scale of a figure of a kind of task; None if it cannot be chosen."""
    listed = metric_named(KINDS[kind].choosable, metric)
    return listed.scale if listed else None


def _drawn(examples: list[Any], count: int, seed: int) -> list[Any]:
    """Return `count` examples drawn at random by `seed`, in their old order; all for `count` 0."""
    if count <= 0 or count >= len(examples):
        return examples
    # Not default_rng, whose generator NumPy may change: a resumed run must draw the same examples.
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(examples))
    return [examples[index] for index in np.sort(order[:count])]


def validation_splits(entry: Entry) -> tuple[str, ...]:
    """Return the names of the validation splits; the first chooses the checkpoint."""
    return KINDS[entry.kind].validation_splits(entry)


def test_splits(entry: Entry) -> tuple[str, ...]:
    """Return the names of the splits to predict for a test set; MNLI has two."""
    return KINDS[entry.kind].test_splits(entry)


def metrics_of(entry: Entry) -> tuple[str, ...]:
    """Return the metrics that the task may have; reports show the first one that a run has."""
    return KINDS[entry.kind].possible_metrics(entry)


def heads_needed(
    opened: Sequence[OpenedTask], available: Sequence[Head], *, token_pooler: bool = False
) -> tuple[Head, ...]:
    """Return the model's heads for these tasks; `available` are those of the pretrained model.

    `token_pooler` is the setting of the model.
    """
    needed: set[Head] = set()
    for opened_task in opened:
        kind = KINDS[opened_task.entry.kind]
        needed.update(kind.heads)
        if token_pooler and opened_task.task.per_token:
            needed.add("pooler")
        needed.update(head for head in kind.optional_heads if head in available)
    return tuple(head for head in HEADS if head in needed)


def to_plain(task: Task) -> dict[str, Any]:
    """Return a task as JSON, which a checkpoint's `meta` keeps."""
    kind = kind_of(task)
    return {"kind": kind.name, **kind.to_dict(task)}


def from_plain(values: Mapping[str, Any], where: str) -> Task:
    """Return the task that `to_plain` made `values` of.

    Raises `UserError`, naming `where`, if `values` have no known kind.
    """
    check(isinstance(values, Mapping), where=where, found=shown(values), expected="a task")
    fields = dict(values)
    name = fields.pop("kind", "")
    check(
        isinstance(name, str) and name in KINDS,
        where=where,
        found=f"the kind of task {shown(name)}",
        expected=f"one of {', '.join(KINDS)}",
    )
    return KINDS[name].from_dict(fields, where)
