"""Classification of texts, and regression: tasks of GLUE, and any table of texts and labels."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.json_values import record
from bertjax.tasks.class_scores import MEASURES
from bertjax.tasks.class_weights import balanced_weights
from bertjax.tasks.classification.examples import read_examples, text_columns_of
from bertjax.tasks.classification.glue import TASKS, GlueTask, glue_task, write_submission
from bertjax.tasks.classification.labels import LabelType, all_classes, labels_of
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.predictions import TextPrediction, write_predictions
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.classification.task import TextTask
from bertjax.tasks.error_tables import Mistake
from bertjax.tasks.examples import TextExample
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.kind import (
    CLASS_WEIGHTS,
    ENCODING,
    FILE_FORM,
    LABEL_COLUMNS,
    LABEL_SMOOTHING,
    Entry,
    Kind,
    PredictedSplit,
)
from bertjax.tasks.metric_table import Metric
from bertjax.tasks.task_head import TaskHead
from bertjax.tasks.text_lines import Form

TASK_CLASSES: dict[str, type[TextTask]] = {
    "class": SingleLabel,
    "classes": MultiLabel,
    "number": Regression,
}
"""The class of the task for each value of `finetune.label_type`; checkpoints save that value."""


class ClassificationKind(Kind[TextTask, TextExample, TextPrediction]):
    """Prediction of one class, several classes or a number for a sentence or a pair."""

    name = "classification"
    task_classes = (SingleLabel, MultiLabel, Regression)
    metrics = ("accuracy", "f1_micro", "pearson")  # of one class, several classes, a number
    choosable = tuple(
        dict.fromkeys(chain.from_iterable(each.choosable for each in TASK_CLASSES.values()))
    )
    data_sets = tuple(task.name for task in TASKS)

    def knows(self, name: str) -> bool:
        """Return whether `name`, in any spelling, is a task of GLUE."""
        return glue_task(name) is not None

    def canonical_name(self, name: str) -> str:
        """Return the name of a GLUE task in lower case without hyphens: sst2 for SST-2."""
        glue = glue_task(name)
        return glue.name if glue else name

    def validation_splits(self, entry: Entry) -> tuple[str, ...]:
        """Return `validation`; for MNLI without given files, its matched and mismatched splits."""
        glue = glue_task(entry.name)
        if glue is None or "validation" in entry.location.files:
            return ("validation",)
        return glue.validation_splits

    def test_splits(self, entry: Entry) -> tuple[str, ...]:
        """Return `test`; for MNLI without given files, its matched and mismatched splits."""
        glue = glue_task(entry.name)
        if glue is None or "test" in entry.location.files:
            return ("test",)
        return glue.test_splits

    def possible_metrics(self, entry: Entry) -> tuple[str, ...]:
        """Return the metrics of the GLUE task; for another task, one for each type of label."""
        glue = glue_task(entry.name)
        return glue.metrics if glue else self.metrics

    def choosable_metrics(self, entry: Entry, options: FinetuneConfig) -> tuple[Metric, ...]:
        """Return the metrics for the type of the labels."""
        return TASK_CLASSES[_label_type(glue_task(entry.name), options)].choosable

    def task_metrics(self, task: TextTask) -> tuple[Metric, ...]:
        """Return the metrics for the type and the number of the labels."""
        return task.own_metrics

    def metric_classes(self, task: TextTask) -> tuple[str, ...]:
        """Return the labels."""
        return task.labels

    def metric_class(self, task: TextTask, metric: str) -> str | None:
        """Return the class of the metric; of two classes, `f1` is that of the second one."""
        if isinstance(task, SingleLabel) and metric in MEASURES:
            return task.labels[1]
        return super().metric_class(task, metric)

    def classes_in(self, task: TextTask, examples: Sequence[TextExample]) -> Collection[str]:
        """Return the labels that the examples have."""
        return set(all_classes(examples))

    def with_metrics(self, task: TextTask, metrics: tuple[str, ...]) -> TextTask:
        """Return the task with these metrics before those of all classes that it has."""
        # An evaluation's files may lack the class of a metric that training has chosen.
        others = tuple(name for name in task.figure_names if ":" not in name)
        return dataclasses.replace(task, metrics=tuple(dict.fromkeys(metrics + others)))

    def used_options(self, entry: Entry, options: FinetuneConfig) -> frozenset[str]:
        """Return the options of the files, and those that change the loss over classes, if any."""
        used = {FILE_FORM, ENCODING}
        glue = glue_task(entry.name)
        if glue is None:
            used.add(LABEL_COLUMNS)
        if _label_type(glue, options) != "number":
            used |= {LABEL_SMOOTHING, CLASS_WEIGHTS}
        return frozenset(used)

    def read_split(
        self, entry: Entry, split: str, options: FinetuneConfig, labelled: bool
    ) -> list[TextExample]:
        """Return the examples of a split, as `read_examples` reads them."""
        glue = glue_task(entry.name)
        return read_examples(
            entry.location,
            split,
            task=glue,
            text_columns=options.text_columns,
            label_column=options.label_column,
            label_type=_label_type(glue, options),
            label_separator=options.label_separator,
            label_columns=options.label_columns,
            unlabelled=not labelled,
        )

    def make_task(
        self,
        name: str,
        examples: Sequence[TextExample],
        options: FinetuneConfig,
        tokenizer: Tokenizer,
    ) -> TextTask:
        """Return the task; its labels are those of GLUE, or else those that occur in training."""
        glue = glue_task(name)
        task_class = TASK_CLASSES[_label_type(glue, options)]
        labels: tuple[str, ...] = ()
        if glue:
            # All labels, with the numbers that the task's files use: if only a part of the
            # training set is read, a label may not occur in it.
            labels = glue.labels
        elif task_class is not Regression:
            # Where each class has its place, it is a class even if no example has it.
            labels = examples[0].classes or labels_of(examples)
        weights: tuple[float, ...] = ()
        if options.class_weights == "balanced":
            weights = balanced_weights(labels, all_classes(examples))
        metrics = glue.metrics if glue else ()
        return task_class(name, labels, metrics, options.label_smoothing, weights)

    def to_dict(self, task: TextTask) -> dict[str, Any]:
        """Return the task's fields; `label_type` stands for its class."""
        return {
            "name": task.name,
            "labels": task.labels,
            "label_type": task.label_type,
            "metrics": task.metrics,
            "label_smoothing": task.label_smoothing,
            "class_weights": task.class_weights,
        }

    def from_dict(self, values: Mapping[str, Any], where: str) -> TextTask:
        """Return the task from values of `to_dict`; without `label_type` it is a `SingleLabel`."""
        fields = dict(values)
        label_type = fields.pop("label_type", "class")
        check(
            isinstance(label_type, str) and label_type in TASK_CLASSES,
            where=f"{where}: task {fields.get('name', '')}: label_type",
            found=label_type,
            expected=f"one of {', '.join(TASK_CLASSES)}",
        )
        return record(TASK_CLASSES[label_type], fields, where)

    def majority_baseline(self, task: TextTask, examples: Sequence[TextExample]) -> float | None:
        """Return the metric of the best constant class; 0 for sets of classes and for numbers."""
        return task.majority_baseline(examples)

    def is_constant(
        self, task: TextTask, figures: Mapping[str, float], examples: Sequence[TextExample]
    ) -> bool:
        """Return whether the metric is a recall, and no class but its own is ever right."""
        return task.is_constant(figures, examples)

    def mistakes(
        self,
        task: TextTask,
        predictions: Sequence[TextPrediction],
        examples: Sequence[TextExample],
    ) -> Iterator[Mistake]:
        """Yield the wrong predictions; their severity comes from `TextTask.mistake_severity`."""
        for prediction, example in zip(predictions, examples, strict=True):
            severity = task.mistake_severity(prediction, example)
            if severity is not None:
                text = example.text
                if example.pair is not None:
                    text += f"  |  {example.pair}"
                yield Mistake(severity, text, _shown_label(example), prediction.shown())

    def shown_answer(self, prediction: TextPrediction) -> str:
        """Return the class, the classes, or the number."""
        return prediction.answer()

    def constant_answer(
        self,
        task: TextTask,
        predictions: Sequence[TextPrediction],
        examples: Sequence[TextExample],
    ) -> str | None:
        """Return the answer that is the same for all; numbers need only be nearly the same."""
        if isinstance(task, Regression):
            return task.constant_answer(predictions, examples)
        return super().constant_answer(task, predictions, examples)

    def error_tables(
        self,
        task: TextTask,
        predictions: Sequence[TextPrediction],
        examples: Sequence[TextExample],
    ) -> dict[str, Any]:
        """Return `errors`; for single classes also `confusion`; for classes also `calibration`."""
        errors = super().error_tables(task, predictions, examples)
        return {**errors, **task.prediction_tables(predictions, examples)}

    def write_predictions(
        self,
        folder: epath.Path,
        predicted: PredictedSplit[TextExample, TextPrediction],
        options: FinetuneConfig,
    ) -> list[epath.Path]:
        """Write a table, `TASK-SPLIT.tsv`; for a GLUE test set also the file to submit.

        GLUE itself gives that file its name, such as `RTE.tsv`.
        """
        predictions, examples = predicted.predictions, predicted.examples
        paths = [folder / predicted.file_name("tsv")]
        write_predictions(paths[0], predictions, examples, options.label_separator)
        glue = glue_task(predicted.entry.name)
        if glue and predicted.split in glue.test_splits:
            paths.append(write_submission(folder, glue, predicted.split, predictions, examples))
        return paths

    def line_forms(
        self, task: TextTask, location: DataLocation, options: FinetuneConfig
    ) -> tuple[Form, ...]:
        """Return the columns of the texts; both one and two if no training file tells."""
        columns = text_columns_of(location, glue_task(task.name), options.text_columns)
        return (columns,) if columns else (("text",), ("first text", "second text"))

    def example_of(self, identifier: str, columns: Sequence[str]) -> TextExample:
        """Return the example of a text, or of a pair of texts."""
        text, *pair = columns
        return TextExample(identifier, text, pair[0] if pair else None)

    def answer_cells(self, prediction: TextPrediction, options: FinetuneConfig) -> list[str]:
        """Return the class or the classes with their probabilities, or the number."""
        return prediction.cells(options.label_separator)

    def answer_fields(self, task: TextTask, prediction: TextPrediction) -> dict[str, Any]:
        """Return `prediction`, and `probabilities` of classes by their names."""
        return prediction.fields(task.labels)

    def task_head(self, task: TextTask) -> TaskHead:
        """Return the description of the head, which is on the sentence vector."""
        return TaskHead(
            task.name,
            self.name,
            task.labels,
            "SequenceClassification",
            label_type=task.label_type,
            problem_type=task.problem_type,
        )


def _label_type(glue: GlueTask | None, options: FinetuneConfig) -> LabelType:
    """Return the type of the labels: that of the GLUE task, or else `options.label_type`."""
    return glue.label_type if glue else options.label_type


def _shown_label(example: TextExample) -> str:
    if isinstance(example.label, tuple):
        return ", ".join(example.label) or "none"
    return str(example.label)
