"""Tagging: prediction of a tag for each word of a sentence."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.storage import is_compressed, write_lines
from bertjax.tasks.class_scores import class_table
from bertjax.tasks.class_weights import balanced_weights
from bertjax.tasks.error_tables import Mistake, confusion_table
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.files.splits import DataLocation, find_files
from bertjax.tasks.kind import (
    CLASS_WEIGHTS,
    ENCODING,
    LABEL_SMOOTHING,
    TAG_OPTIONS,
    Entry,
    Kind,
    PredictedSplit,
)
from bertjax.tasks.metric_table import Metric
from bertjax.tasks.tagging.columns import chosen_columns
from bertjax.tasks.tagging.conll import read_conll, write_conll
from bertjax.tasks.tagging.figures import OF_ENTITIES, OF_TAGS
from bertjax.tasks.tagging.labels import (
    Tags,
    all_tags,
    describe,
    labels_of,
    types_of,
    unknown_tags,
)
from bertjax.tasks.tagging.read import chooses_accuracy, read_examples
from bertjax.tasks.tagging.schemes import scheme_of
from bertjax.tasks.tagging.scorer_file import scorer_lines
from bertjax.tasks.tagging.tag_form import OUTSIDE
from bertjax.tasks.tagging.task import Tagging, confusion
from bertjax.tasks.task_head import TaskHead
from bertjax.tasks.text_lines import Form

log = logging.getLogger("bertjax")

PARTS_OF_SPEECH = "pos"
"""The name of a data set whose tags are not of entities."""


class TaggingKind(Kind[Tagging, TaggedExample, Tags]):
    """Prediction of a tag for each word, such as named entities or parts of speech."""

    name = "tagging"
    task_classes = (Tagging,)
    metrics = ("f1", "accuracy")
    choosable = (*OF_ENTITIES, *OF_TAGS)
    data_sets = ("conll2003", "wnut17", "wikiann", "ner", PARTS_OF_SPEECH)
    heads = ()  # no pooler: each token's hidden state is tagged
    newer_fields = Kind.newer_fields | {"scheme", "strict", "columns"}

    def used_options(self, entry: Entry, options: FinetuneConfig) -> frozenset[str]:
        """Return the options that change the loss over tags, and those of files and of tags."""
        return TAG_OPTIONS | {LABEL_SMOOTHING, CLASS_WEIGHTS, ENCODING}

    def read_split(
        self, entry: Entry, split: str, options: FinetuneConfig, labelled: bool
    ) -> list[TaggedExample]:
        """Return the sentences of CoNLL files, JSON, Parquet or TFDS (`read_examples`)."""
        return read_examples(entry, split, options, labelled=labelled)

    def make_task(
        self,
        name: str,
        examples: Sequence[TaggedExample],
        options: FinetuneConfig,
        tokenizer: Tokenizer,
    ) -> Tagging:
        """Return the task with the tags that occur in training, and log their scheme.

        Raises `UserError` if `finetune.strict_entities` is set and the tags are not of entities.
        """
        labels = labels_of(examples)
        scheme = scheme_of(example.tags or () for example in examples)
        over_words = name.lower() == PARTS_OF_SPEECH or chooses_accuracy(name, options)
        is_surprise = scheme is None and not over_words
        log.log(logging.WARNING if is_surprise else logging.INFO, describe(name, labels, scheme))
        weights: tuple[float, ...] = ()
        if options.class_weights == "balanced":
            weights = balanced_weights(labels, all_tags(examples))
        return Tagging(
            name,
            labels,
            options.label_smoothing,
            weights,
            scheme=scheme,
            strict=options.strict_entities,
            columns=examples[0].columns if examples else (),
        )

    def for_evaluation(self, task: Tagging, options: FinetuneConfig) -> Tagging:
        """Return the task with `finetune.strict_entities`, which changes figures alone."""
        return dataclasses.replace(task, strict=options.strict_entities)

    def task_metrics(self, task: Tagging) -> tuple[Metric, ...]:
        """Return all metrics for tags of entities; for other tags those over words."""
        return OF_TAGS if task.form is None else self.choosable

    def metric_classes(self, task: Tagging) -> tuple[str, ...]:
        """Return the types of entities; of other tags, the tags."""
        return task.labels if task.form is None else types_of(task.labels)

    def classes_in(self, task: Tagging, examples: Sequence[TaggedExample]) -> set[str]:
        """Return the types of entities, or the tags, that the examples have."""
        tags = set(all_tags(examples))
        if task.form is None:
            return tags
        parts_of_tags = [task.form.parts(tag) for tag in tags]
        return {parts.type for parts in parts_of_tags if parts is not None}

    def majority_baseline(self, task: Tagging, examples: Sequence[TaggedExample]) -> float | None:
        """Return the metric if every word gets the most frequent tag; None if no model exceeds it.

        None is for examples without entities, say, whose F1 is 0 even if every tag is right.
        """
        # The most frequent tag is used, not the tag with the best metric. It is usually O, for
        # which the F1 over entities is 0. A tag that training has not is never predicted.
        counts = Counter(tag for tag in all_tags(examples) if tag in task.labels)
        if not counts:
            return 0.0
        most_frequent = max(counts, key=counts.__getitem__)
        predictions = [(most_frequent,) * len(example.words) for example in examples]
        baseline = task.figures(predictions, examples)[task.metric]
        perfect = task.figures([example.tags or () for example in examples], examples)[task.metric]
        return baseline if baseline < perfect else None

    def mistakes(
        self, task: Tagging, predictions: Sequence[Tags], examples: Sequence[TaggedExample]
    ) -> Iterator[Mistake]:
        """Yield the sentences with wrong tags; the severity is the number of wrong tags.

        A word is shown as WORD/TAG if its true or its predicted tag is not O.
        """
        for predicted, example in zip(predictions, examples, strict=True):
            true = example.tags or ()
            wrong = sum(tag != guess for tag, guess in zip(true, predicted, strict=True))
            if wrong:
                yield Mistake(
                    wrong,
                    " ".join(example.words),
                    _shown_tags(example.words, true, predicted),
                    _shown_tags(example.words, predicted, true),
                )

    def shown_answer(self, prediction: Tags) -> str:
        """Return the tags of a sentence, each once."""
        return " ".join(sorted(set(prediction)))

    def constant_answer(
        self, task: Tagging, predictions: Sequence[Tags], examples: Sequence[TaggedExample]
    ) -> str | None:
        """Return the tag that all words of all sentences get, else None."""
        if len(set(chain.from_iterable(predictions))) != 1:
            return None
        return super().constant_answer(task, predictions, examples)

    def error_tables(
        self, task: Tagging, predictions: Sequence[Tags], examples: Sequence[TaggedExample]
    ) -> dict[str, Any]:
        """Return `class_scores` of types of entities or tags, `confusion` of tags, and `errors`."""
        # Tags that training has not are never predicted, but they are in the gold tags.
        labels = (*task.labels, *sorted(unknown_tags(examples, task.labels)))
        return {
            "class_scores": class_table(*task.class_counts(predictions, examples)),
            "confusion": confusion_table(labels, confusion(predictions, examples, labels)),
            **super().error_tables(task, predictions, examples),
        }

    def write_predictions(
        self,
        folder: epath.Path,
        predicted: PredictedSplit[TaggedExample, Tags],
        options: FinetuneConfig,
    ) -> list[epath.Path]:
        """Write a copy of the split's CoNLL file with the predicted tags, `TASK-SPLIT.ENDING`.

        The ending is that of the file. If there are several files, the copies are
        `TASK-SPLIT-FILE`. For a split from other files, write `TASK-SPLIT.txt`, with the tags of a
        sentence on each line. With `finetune.keep_gold_tags`, write the input of conlleval
        (`scorer_lines`), `TASK-SPLIT.conll`, from any files.
        """
        entry, predictions = predicted.entry, predicted.predictions
        if options.keep_gold_tags:
            # Read again: to be predicted, examples are read without their tags.
            examples = self.read_split(entry, predicted.split, options, labelled=True)
            lines = list(scorer_lines(examples, predictions))
            return [write_lines(folder / predicted.file_name("conll"), lines)]
        if entry.location.is_tfds or not predicted.examples[0].lines:
            lines = [" ".join(tags) for tags in predictions]
            return [write_lines(folder / predicted.file_name("txt"), lines)]
        written: list[epath.Path] = []
        begin = 0
        sources = find_files(entry.location, predicted.split)
        for source in sources:
            name, _, ending = _uncompressed_name(source).rpartition(".")
            part = (name or ending) if len(sources) > 1 else ""
            path = folder / predicted.file_name(ending if name else "txt", part)
            check(
                # Files of one name in several folders would overwrite each other.
                path not in written,
                where=str(source),
                found="the name of another file that is predicted",
                expected="files of different names",
            )
            columns = chosen_columns(source, options, tags=False)
            encoding = entry.location.encoding
            # Read again, since examples of several files do not tell where one file ends.
            end = begin + len(read_conll(source, tags=False, columns=columns, encoding=encoding))
            write_conll(path, source, predictions[begin:end], columns=columns, encoding=encoding)
            written.append(path)
            begin = end
        return written

    def line_forms(
        self, task: Tagging, location: DataLocation, options: FinetuneConfig
    ) -> tuple[Form, ...]:
        """Return one column: the words of a sentence, separated by spaces."""
        return (("words separated by spaces",),)

    def example_of(self, identifier: str, columns: Sequence[str]) -> TaggedExample:
        """Return the sentence of the words, which white space separates."""
        return TaggedExample(identifier, tuple(columns[0].split()))

    def answer_cells(self, prediction: Tags, options: FinetuneConfig) -> list[str]:
        """Return the tags of the sentence, separated by spaces."""
        return [" ".join(prediction)]

    def answer_fields(self, task: Tagging, prediction: Tags) -> dict[str, Any]:
        """Return the list of tags."""
        return {"prediction": list(prediction)}

    def task_head(self, task: Tagging) -> TaskHead:
        """Return the head on every token."""
        return TaskHead(task.name, self.name, task.labels, "TokenClassification", on_tokens=True)


def _shown_tags(words: Tags, tags: Tags, others: Tags) -> str:
    """Return WORD/TAG for each word whose tag in `tags` or in `others` is not O."""
    shown = []
    for word, tag, other in zip(words, tags, others, strict=True):
        if (tag, other) != (OUTSIDE, OUTSIDE):
            shown.append(f"{word}/{tag}")
    return " ".join(shown)


def _uncompressed_name(path: epath.Path) -> str:
    """Return a file's name without the ending of a compression: predictions are written as text."""
    return path.name.removesuffix(path.suffix) if is_compressed(path.name) else path.name
