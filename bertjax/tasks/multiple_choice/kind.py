"""Multiple choice: prediction of the right ending among several, as in SWAG."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.given_files import place_of
from bertjax.number_text import number_text
from bertjax.storage import write_lines
from bertjax.tasks.error_tables import Mistake, are_finite, calibration_table
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.files.splits import DataLocation, has_split
from bertjax.tasks.kind import ENCODING, LABEL_SMOOTHING, Entry, Kind, PredictedSplit
from bertjax.tasks.metric_table import Metric
from bertjax.tasks.metrics import reliability
from bertjax.tasks.multiple_choice.files import (
    CODAH,
    SWAG_STEMS,
    cross_validation,
    read_choice_file,
    read_choices,
    with_labels,
)
from bertjax.tasks.multiple_choice.task import Choice, ChoicePrediction
from bertjax.tasks.task_head import TaskHead
from bertjax.tasks.text_lines import Form

CODAH_FILE = "full_data.tsv"


class ChoiceKind(Kind[Choice, ChoiceExample, ChoicePrediction]):
    """Prediction of one of several endings of a text."""

    name = "choice"
    task_classes = (Choice,)
    metrics = ("accuracy",)
    choosable = (Metric("accuracy"),)
    data_sets = ("swag", "codah")

    def used_options(self, entry: Entry, options: FinetuneConfig) -> frozenset[str]:
        """Return the option that changes the loss over the endings, and that of the files."""
        return frozenset({LABEL_SMOOTHING, ENCODING})

    def read_split(
        self, entry: Entry, split: str, options: FinetuneConfig, labelled: bool
    ) -> list[ChoiceExample]:
        """Return the examples of a split.

        CODAH has only one file, which `cross_validation` divides into splits. If `labelled`,
        examples without a label are left out, and counted.
        """
        location = dataclasses.replace(entry.location, stems=SWAG_STEMS)
        examples = _examples(location, split, options)
        return with_labels(examples, f"{location.path}, split {split}") if labelled else examples

    def make_task(
        self,
        name: str,
        examples: Sequence[ChoiceExample],
        options: FinetuneConfig,
        tokenizer: Tokenizer,
    ) -> Choice:
        """Return the task; its number of endings is that of the first example."""
        # The first example decides: `Choice.encode` checks that the others have as many.
        return Choice(name, len(examples[0].endings), options.label_smoothing)

    def with_metrics(self, task: Choice, metrics: tuple[str, ...]) -> Choice:
        """Return the task as it is: accuracy is its only metric."""
        return task

    def majority_baseline(self, task: Choice, examples: Sequence[ChoiceExample]) -> float:
        """Return the highest accuracy of a prediction that is the same for all examples."""
        values = []
        for choice in range(task.choices):
            constant = ChoicePrediction(choice, task.certain(choice))
            figures = task.figures([constant] * len(examples), examples)
            values.append(figures[task.metric])
        return max(values)

    def mistakes(
        self,
        task: Choice,
        predictions: Sequence[ChoicePrediction],
        examples: Sequence[ChoiceExample],
    ) -> Iterator[Mistake]:
        """Yield the wrong predictions; the severity is the probability of the predicted ending."""
        for prediction, example in zip(predictions, examples, strict=True):
            if prediction.choice != example.label:
                assert example.label is not None
                yield Mistake(
                    max(prediction.probabilities),
                    example.context,
                    example.endings[example.label],
                    example.endings[prediction.choice],
                )

    def shown_answer(self, prediction: ChoicePrediction) -> str:
        """Return the number of the ending, from 0 as in the files."""
        return f"ending {prediction.choice}"

    def error_tables(
        self,
        task: Choice,
        predictions: Sequence[ChoicePrediction],
        examples: Sequence[ChoiceExample],
    ) -> dict[str, Any]:
        """Return `errors` and, if all probabilities are finite, `calibration`."""
        tables = super().error_tables(task, predictions, examples)
        if are_finite(prediction.probabilities for prediction in predictions):
            probabilities = [max(prediction.probabilities) for prediction in predictions]
            right = task.are_right(predictions, examples)
            tables["calibration"] = calibration_table(reliability(probabilities, right))
        return tables

    def write_predictions(
        self,
        folder: epath.Path,
        predicted: PredictedSplit[ChoiceExample, ChoicePrediction],
        options: FinetuneConfig,
    ) -> list[epath.Path]:
        """Write `TASK-SPLIT.tsv`: id, number of the predicted ending (from 0), and probability."""
        lines = ["id\tprediction\tprobability"]
        for prediction, example in zip(predicted.predictions, predicted.examples, strict=True):
            lines.append("\t".join([example.id, *self.answer_cells(prediction, options)]))
        return [write_lines(folder / predicted.file_name("tsv"), lines)]

    def line_forms(
        self, task: Choice, location: DataLocation, options: FinetuneConfig
    ) -> tuple[Form, ...]:
        """Return the columns of the context and of each ending."""
        return (("context", *(f"ending {number}" for number in range(task.choices))),)

    def example_of(self, identifier: str, columns: Sequence[str]) -> ChoiceExample:
        """Return the context with its endings."""
        context, *endings = columns
        return ChoiceExample(identifier, context, tuple(endings))

    def answer_cells(self, prediction: ChoicePrediction, options: FinetuneConfig) -> list[str]:
        """Return the number of the ending, from 0, and its probability."""
        probability = number_text(max(prediction.probabilities), ".4f")
        return [str(prediction.choice), probability]

    def answer_fields(self, task: Choice, prediction: ChoicePrediction) -> dict[str, Any]:
        """Return the number of the ending, from 0, and the probability of each."""
        probabilities = [float(p) for p in prediction.probabilities]
        return {"prediction": int(prediction.choice), "probabilities": probabilities}

    def task_head(self, task: Choice) -> TaskHead:
        """Return the description of the head, which gives one number for each ending's row."""
        return TaskHead(task.name, self.name, (), "MultipleChoice", label_type="number")


def _examples(location: DataLocation, split: str, options: FinetuneConfig) -> list[ChoiceExample]:
    whole_file = place_of(location.path) / CODAH_FILE
    # Files that are given, or that have the names of splits, go before the one file.
    has_splits = bool(location.files) or location.is_tfds or has_split(location, "train")
    if has_splits or not whole_file.exists():
        return read_choices(location, split)
    examples = read_choice_file(whole_file, options.columns or CODAH, location.encoding)
    parts = cross_validation(examples)
    check(split in parts, where="the split", found=split, expected=f"one of {', '.join(parts)}")
    return parts[split]
