"""The kinds of task, the names that they are known by, and how one is opened from data or from a
checkpoint.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config, FinetuneConfig, Head
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.tasks.classification import examples as text_examples
from bertjax.tasks.classification.glue import glue_task
from bertjax.tasks.classification.task import Classification
from bertjax.tasks.files.splits import Source, find_files, has_split, read_rows
from bertjax.tasks.multiple_choice import files as choice_files
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.question_answering import squad
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.seq2seq.decode import Search
from bertjax.tasks.seq2seq.pairs import read_pairs
from bertjax.tasks.seq2seq.task import Seq2Seq, make_task
from bertjax.tasks.tagging import task as tagging
from bertjax.tasks.tagging.conll import Columns, read_conll, tagged_rows
from bertjax.tasks.tagging.task import Tagging
from bertjax.tasks.task import Task

NAMED = {
    "squad": "spans",
    "squad_v2": "spans",
    "xquad": "spans",
    "swag": "choice",
    "codah": "choice",
    "conll2003": "tagging",
    "wnut17": "tagging",
    "wikiann": "tagging",
    "ner": "tagging",
    "pos": "tagging",
}
"""Tasks beside GLUE's whose kind goes without saying."""
VERSION_2 = ("squad_v2", "squad2", "squad_v2.0")


@dataclass(frozen=True)
class Entry:
    """One of `finetune.tasks`."""

    name: str
    kind: str
    source: Source


@dataclass(frozen=True)
class Opened:
    """A task with its data."""

    entry: Entry
    task: Task
    splits: Mapping[str, list[Any]]
    """Examples by split: `train`, then the validation splits, the task's own first."""


@dataclass(frozen=True)
class Kind:
    """What one kind of task has of its own to read and to make."""

    type: type
    read: Callable[[Entry, str, FinetuneConfig, bool], list[Any]]
    """The examples of a split; labelled ones, if the last argument says so."""
    make: Callable[[str, list[Any], FinetuneConfig, Tokenizer], Task]
    """The task, from its name and its training examples."""
    metrics: tuple[str, ...]
    """What `Task.metric` may be, whichever of the figures is there first."""
    heads: tuple[Head, ...] = ("pooler",)
    """What it needs of the model beside the encoder."""
    if_there: tuple[Head, ...] = ()
    """What it takes from a model that has it."""


def read_split(entry: Entry, split: str, told: FinetuneConfig, labelled: bool) -> list[Any]:
    """The examples of a split of a task; `UserError` where there are none, or one is not as it
    should be.
    """
    examples = KINDS[entry.kind].read(entry, split, told, labelled)
    check(
        len(examples) > 0,
        where=f"{entry.source.place}, split {split}",
        found="no example",
        expected="one or more",
    )
    return examples


def open_tasks(config: Config, tokenizer: Tokenizer) -> tuple[Opened, ...]:
    """The tasks of `config.finetune` with their training and validation examples.

    Raises `UserError` for a name or kind that is not known, and for data that is not as it should
    be.
    """
    told = config.finetune
    entries = [entry_of(text, told) for text in told.tasks]
    names = [entry.name for entry in entries]
    # However they are spelled: SST-2 is sst2.
    check(
        len(set(names)) == len(names),
        where="finetune.tasks",
        found=", ".join(names),
        expected="each task once",
    )
    named = told.train_files or told.validation_files or told.test_files
    check(
        len(entries) == 1 or not named,
        where="finetune.train_files",
        found=named,
        expected="none where there are several tasks",
    )
    return tuple(_open(entry, config, tokenizer) for entry in entries)


def _open(entry: Entry, config: Config, tokenizer: Tokenizer) -> Opened:
    told = config.finetune
    _check_used(entry, told)
    splits = {
        split: read_split(entry, split, told, True)
        for split in ("train", *validation_splits(entry))
    }
    # Before any are drawn: the drawn ones may lack a class.
    task = KINDS[entry.kind].make(entry.name, splits["train"], told, tokenizer)
    if 0 < told.max_train_examples < len(splits["train"]):
        chosen = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(splits["train"]))
        splits["train"] = [
            splits["train"][number] for number in np.sort(chosen[: told.max_train_examples])
        ]
    return Opened(entry, task, splits)


def _check_used(entry: Entry, told: FinetuneConfig) -> None:
    """Raise `UserError` for an option that this kind of task would not heed."""
    number = entry.kind == "classification" and _is_number(entry.name, told)
    weighed = entry.kind in ("classification", "tagging") and not number
    weights, smoothing = told.class_weights, told.label_smoothing
    check(
        weights == "none" or weighed,
        where="finetune.class_weights",
        found=weights,
        expected=f"none, for {entry.name}",
    )
    check(
        smoothing == 0 or not (number or entry.kind == "spans"),
        where="finetune.label_smoothing",
        found=smoothing,
        expected=f"0, for {entry.name}",
    )
    decoder = told.decoder_from
    check(
        not decoder or entry.kind == "seq2seq",
        where="finetune.decoder_from",
        found=decoder,
        expected=f"none, for {entry.name}",
    )


def _is_number(name: str, told: FinetuneConfig) -> bool:
    known = glue_task(name)
    return (known.label_type if known else told.label_type) == "number"


def entry_of(text: str, told: FinetuneConfig) -> Entry:
    """A task as it is written in `finetune.tasks`."""
    said, _, place = text.partition("=")
    name, _, kind = said.partition(":")
    known = glue_task(name)
    if not kind:
        kind = "classification" if known else NAMED.get(name.lower(), "")
    expected = f"a name of GLUE's, {', '.join(NAMED)}; or NAME:KIND=PLACE with a KIND of {', '.join(KINDS)}"
    check(kind in KINDS, where="finetune.tasks", found=text, expected=expected)
    files = {
        "train": told.train_files,
        "validation": told.validation_files,
        "test": told.test_files,
    }
    source = Source(place, {split: names for split, names in files.items() if names}, told.columns)
    return Entry(known.name if known else name, kind, source)


def validation_splits(entry: Entry) -> tuple[str, ...]:
    """The task's own validation split first."""
    known = glue_task(entry.name) if entry.kind == "classification" else None
    return (
        known.validation_splits
        if known and "validation" not in entry.source.files
        else ("validation",)
    )


def test_splits(entry: Entry) -> tuple[str, ...]:
    """What there is to predict: MNLI has two."""
    known = glue_task(entry.name) if entry.kind == "classification" else None
    return known.test_splits if known and "test" not in entry.source.files else ("test",)


def heads_needed(opened: Sequence[Opened], found: Sequence[Head]) -> tuple[Head, ...]:
    """The model's heads for these tasks, where the model to begin with has those `found`."""
    kinds = [KINDS[one.entry.kind] for one in opened]
    wanted = {
        head
        for kind in kinds
        for head in (*kind.heads, *(head for head in kind.if_there if head in found))
    }
    heads: tuple[Head, ...] = ("pooler", "mlm", "nsp")
    return tuple(head for head in heads if head in wanted)


def to_plain(opened: Opened) -> dict[str, Any]:
    """A task as JSON: what a checkpoint's `meta` keeps of it."""
    return {"kind": opened.entry.kind, **dataclasses.asdict(opened.task)}  # type: ignore[call-overload]


def from_plain(values: Mapping[str, Any], where: str) -> tuple[str, Task]:
    """(kind, task) of `to_plain`; `UserError` naming `where` for what is none."""
    rest = dict(values)
    kind = rest.pop("kind", "")
    check(
        kind in KINDS,
        where=where,
        found=f"the kind of task {kind!r}",
        expected=f"one of {', '.join(KINDS)}",
    )
    if "search" in rest:
        rest["search"] = Search(**rest["search"])
    made = {
        name: tuple(value) if isinstance(value, list) else value for name, value in rest.items()
    }
    return kind, KINDS[kind].type(**made)


def _read_text(entry: Entry, split: str, told: FinetuneConfig, labelled: bool) -> list[Any]:
    return text_examples.read_examples(
        entry.source,
        split,
        task=glue_task(entry.name),
        text_columns=told.text_columns,
        label_column=told.label_column,
        label_type=told.label_type if not glue_task(entry.name) else "class",
        label_separator=told.label_separator,
        unlabelled=not labelled,
    )


def _make_text(name: str, train: list[Any], told: FinetuneConfig, tokenizer: Tokenizer) -> Task:
    known = glue_task(name)
    label_type: Any = known.label_type if known else told.label_type
    number = label_type == "number"
    labels = () if number else known.labels if known else text_examples.labels_of(train)
    return Classification(
        name,
        labels,
        label_type,
        known.metrics if known else (),
        told.label_smoothing,
        text_examples.balanced_weights(labels, train) if told.class_weights == "balanced" else (),
    )


def _read_tagged(entry: Entry, split: str, told: FinetuneConfig, labelled: bool) -> list[Any]:
    if entry.source.is_tfds or any(
        ".json" in path.name for path in find_files(entry.source, split)
    ):
        examples = tagged_rows(
            read_rows(entry.source, split), tag_field=told.label_column, tags=labelled
        )
    else:
        columns = conll_columns(told)
        paths = find_files(entry.source, split)
        examples = [
            one for path in paths for one in read_conll(path, tags=labelled, columns=columns)
        ]
    if split == "train":
        tagging.check_rules(examples)
    return examples


def conll_columns(told: FinetuneConfig) -> Columns | None:
    """The columns of a CoNLL file: `label_column` by its number from 0, or by its name among
    `columns`.
    """
    wanted = told.label_column
    if not wanted:
        return None
    number = (
        told.columns.index(wanted)
        if wanted in told.columns
        else int(wanted)
        if wanted.isdecimal()
        else -1
    )
    check(
        number > 0,
        where="finetune.label_column",
        found=wanted,
        expected="the number of a CoNLL file's column, from 0, the word's",
    )
    return Columns(tag=number)


def _make_tagging(name: str, train: list[Any], told: FinetuneConfig, tokenizer: Tokenizer) -> Task:
    labels = tagging.labels_of(train)
    weights = tagging.balanced_weights(train, labels) if told.class_weights == "balanced" else ()
    return Tagging(name, labels, told.label_smoothing, weights)


def _read_questions(entry: Entry, split: str, told: FinetuneConfig, labelled: bool) -> list[Any]:
    training = split == "train"
    if entry.source.is_tfds:
        return squad.read_tfds(entry.source.place, split, training=training)
    paths = find_files(entry.source, split)
    return [example for path in paths for example in squad.read_squad(path, training=training)]


def _make_spans(name: str, train: list[Any], told: FinetuneConfig, tokenizer: Tokenizer) -> Task:
    unanswerable = any(example.answers == () for example in train)
    return Spans(
        name,
        version_2=unanswerable or name in VERSION_2,
        doc_stride=told.doc_stride,
        max_query_length=told.max_query_length,
        max_answer_length=told.max_answer_length,
        n_best_size=told.n_best_size,
    )


def _read_choices(entry: Entry, split: str, told: FinetuneConfig, labelled: bool) -> list[Any]:
    """CODAH has one file, which is cut by the hash of its prompts."""
    source = dataclasses.replace(entry.source, stems=choice_files.SWAG_STEMS)
    whole = epath.Path(source.place) / "full_data.tsv"
    if (
        not source.files
        and not source.is_tfds
        and not has_split(source, "train")
        and whole.exists()
    ):
        examples = choice_files.read_choice_file(whole, told.columns or choice_files.CODAH)
        parts = choice_files.cross_validation(examples)
        check(split in parts, where="the split", found=split, expected=f"one of {', '.join(parts)}")
        return parts[split]
    return choice_files.read_choices(source, split)


def _make_choice(name: str, train: list[Any], told: FinetuneConfig, tokenizer: Tokenizer) -> Task:
    return Choice(name, len(train[0].endings), told.label_smoothing)


def _read_pairs(entry: Entry, split: str, told: FinetuneConfig, labelled: bool) -> list[Any]:
    texts = told.text_columns or ("source", "target")
    check(
        len(texts) == 2,
        where="finetune.text_columns",
        found=texts,
        expected="two, of the source and of the target",
    )
    return read_pairs(entry.source, split, targets=labelled, texts=(texts[0], texts[1]))


def _make_pairs(name: str, train: list[Any], told: FinetuneConfig, tokenizer: Tokenizer) -> Task:
    return make_task(
        name,
        tokenizer,
        max_target_length=told.max_target_length,
        beam_size=told.beam_size,
        label_smoothing=told.label_smoothing,
    )


KINDS: dict[str, Kind] = {
    "classification": Kind(
        Classification, _read_text, _make_text, ("accuracy", "f1_micro", "pearson")
    ),
    "tagging": Kind(Tagging, _read_tagged, _make_tagging, ("f1", "accuracy"), ()),
    "spans": Kind(Spans, _read_questions, _make_spans, ("best_f1", "f1"), ()),
    "choice": Kind(Choice, _read_choices, _make_choice, ("accuracy",)),
    "seq2seq": Kind(Seq2Seq, _read_pairs, _make_pairs, ("bleu",), (), ("mlm",)),
}


def metrics_of(entry: Entry) -> tuple[str, ...]:
    """What a task's metric may be, whichever of its figures is there first."""
    known = glue_task(entry.name) if entry.kind == "classification" else None
    return known.metrics if known else KINDS[entry.kind].metrics
