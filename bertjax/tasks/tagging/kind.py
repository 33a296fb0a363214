"""Tagging: prediction of a tag for each word of a sentence."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.storage import is_compressed, write_lines
from bertjax.tasks.class_weights import balanced_weights
from bertjax.tasks.error_tables import Mistake, confusion_table
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.files.splits import find_files, read_rows
from bertjax.tasks.kind import CLASS_WEIGHTS, LABEL_SMOOTHING, Entry, Kind, PredictedSplit
from bertjax.tasks.metric_table import Metric
from bertjax.tasks.tagging.conll import Columns, read_conll, tagged_rows, write_conll
from bertjax.tasks.tagging.entity_metrics import is_entity_tags
from bertjax.tasks.tagging.labels import OUTSIDE, Tags, all_tags, check_rules, labels_of
from bertjax.tasks.tagging.task import Tagging, confusion
from bertjax.tasks.task_head import TaskHead


class TaggingKind(Kind[Tagging, TaggedExample, Tags]):
    """Prediction of a tag for each word, such as named entities or parts of speech."""

    name = "tagging"
    task_classes = (Tagging,)
    metrics = ("f1", "accuracy")
    choosable = (Metric("f1"), Metric("precision"), Metric("recall"), Metric("accuracy"))
    data_sets = ("conll2003", "wnut17", "wikiann", "ner", "pos")
    heads = ()  # no pooler: each token's hidden state is tagged

    def used_options(self, entry: Entry, options: FinetuneConfig) -> frozenset[str]:
        """Return the options that change the loss over tags."""
        return frozenset({LABEL_SMOOTHING, CLASS_WEIGHTS})

    def read_split(
        self, entry: Entry, split: str, options: FinetuneConfig, labelled: bool
    ) -> list[TaggedExample]:
        """Return the sentences of CoNLL files, JSON lines or TFDS.

        The tags of the training split must follow the rules of their scheme (`check_rules`). Other
        splits are not checked, as in conlleval.
        """
        if _has_lists(entry, split):
            table_rows = read_rows(entry.location, split)
            examples = tagged_rows(table_rows, tag_field=options.label_column, tags=labelled)
        else:
            columns = conll_columns(options)
            examples = []
            for path in find_files(entry.location, split):
                examples += read_conll(path, tags=labelled, columns=columns)
        if split == "train":
            check_rules(examples)
        return examples

    def make_task(
        self,
        name: str,
        examples: Sequence[TaggedExample],
        options: FinetuneConfig,
        tokenizer: Tokenizer,
    ) -> Tagging:
        """Return the task with the tags that occur in training."""
        labels = labels_of(examples)
        weights: tuple[float, ...] = ()
        if options.class_weights == "balanced":
            weights = balanced_weights(labels, all_tags(examples))
        return Tagging(name, labels, options.label_smoothing, weights)

    def task_metrics(self, task: Tagging) -> tuple[Metric, ...]:
        """Return all metrics for entities, and `accuracy` alone for other tags."""
        return self.choosable if is_entity_tags(task.labels) else (Metric("accuracy"),)

    def majority_baseline(self, task: Tagging, examples: Sequence[TaggedExample]) -> float:
        """Return the metric if every word gets the most frequent tag."""
        # The most frequent tag is used, not the tag with the best metric. It is usually O, for
        # which the F1 over entities is 0.
        counts = Counter(all_tags(examples))
        most_frequent = max(counts, key=counts.__getitem__)
        predictions = [(most_frequent,) * len(example.words) for example in examples]
        return task.figures(predictions, examples)[task.metric]

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
        """Return `confusion` of the words' tags and `errors`."""
        counts = confusion(predictions, examples, task.labels)
        return {
            "confusion": confusion_table(task.labels, counts),
            **super().error_tables(task, predictions, examples),
        }

    def write_predictions(
        self,
        folder: epath.Path,
        predicted: PredictedSplit[TaggedExample, Tags],
        options: FinetuneConfig,
    ) -> list[epath.Path]:
        """Write copies of the split's CoNLL files with the predicted tags, `TASK-FILE`.

        For a split from other files, write `TASK-SPLIT.txt`, with the tags of a sentence on each
        line.
        """
        entry, predictions = predicted.entry, predicted.predictions
        if entry.location.is_tfds or not predicted.examples[0].lines:
            lines = [" ".join(tags) for tags in predictions]
            return [write_lines(folder / f"{predicted.stem}.txt", lines)]
        columns = conll_columns(options)
        written: list[epath.Path] = []
        begin = 0
        for source in find_files(entry.location, predicted.split):
            path = folder / f"{entry.name}-{_uncompressed_name(source)}"
            check(
                # Files of one name in several folders would overwrite each other.
                path not in written,
                where=str(source),
                found="the name of another file that is predicted",
                expected="files of different names",
            )
            # Read again, since examples of several files do not tell where one file ends.
            end = begin + len(read_conll(source, tags=False, columns=columns))
            write_conll(path, source, predictions[begin:end], columns=columns)
            written.append(path)
            begin = end
        return written

    def task_head(self, task: Tagging) -> TaskHead:
        """Return the head on every token."""
        return TaskHead(task.name, self.name, task.labels, "TokenClassification", on_tokens=True)


def conll_columns(options: FinetuneConfig) -> Columns | None:
    """Return the columns of a CoNLL file by `finetune.label_column`; None for the default ones.

    `finetune.label_column` is the number of the tags' column, from 0, or its name in
    `finetune.columns`.
    """
    name = options.label_column
    if not name:
        return None
    number = -1
    if name in options.columns:
        number = options.columns.index(name)
    elif name.isdecimal():
        number = int(name)
    check(
        number > 0,
        where="finetune.label_column",
        found=name,
        expected="the number of a CoNLL file's column, from 0, the word's",
    )
    return Columns(tag=number)


def _has_lists(entry: Entry, split: str) -> bool:
    """Return whether a split holds lists of words and tags, as JSON and TFDS do."""
    if entry.location.is_tfds:
        return True
    # Within the name: .jsonl and .json.gz are meant too.
    return any(".json" in path.name for path in find_files(entry.location, split))


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
