"""The base class of the kinds of task, and one entry of `finetune.tasks`.

Each kind is a folder beside this file. Its `kind.py` holds everything that differs by kind: how
examples are read, how a task is made of them, what its predictions look like on disk.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from etils import epath

from bertjax.config import FinetuneConfig, Head
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.tasks.error_tables import Mistake, worst_mistakes
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.task import Task
from bertjax.tasks.task_head import TaskHead

TaskT = TypeVar("TaskT", bound=Task)
ExampleT = TypeVar("ExampleT")
PredictionT = TypeVar("PredictionT")

LABEL_SMOOTHING, CLASS_WEIGHTS = "label_smoothing", "class_weights"
DECODER_FROM = "decoder_from"
"""Fields of `FinetuneConfig` that only some kinds use: `Kind.used_options`."""


@dataclass(frozen=True)
class Entry:
    """One entry of `finetune.tasks`."""

    name: str
    kind: str
    """The name of its kind, a key of `bertjax.tasks.registry.KINDS`."""
    location: DataLocation


@dataclass(frozen=True)
class PredictedSplit(Generic[ExampleT, PredictionT]):
    """Examples of a split with the prediction of each."""

    entry: Entry
    split: str
    examples: Sequence[ExampleT]
    predictions: Sequence[PredictionT]

    @property
    def stem(self) -> str:
        """The beginning of its files' names, TASK-SPLIT."""
        return f"{self.entry.name}-{self.split}"


class Kind(ABC, Generic[TaskT, ExampleT, PredictionT]):
    """Everything that one kind of task does in its own way.

    The abstract methods must be written for each kind; the others have a default that fits kinds
    with nothing special.
    """

    name: ClassVar[str]
    """As `finetune.tasks` and checkpoints write it."""
    task_classes: ClassVar[tuple[type[Task], ...]]
    """The classes of its tasks."""
    metrics: ClassVar[tuple[str, ...]]
    """Names that `Task.metric` may have; reports show the first of them that a run has."""
    data_sets: ClassVar[tuple[str, ...]] = ()
    """Names of tasks that are known to be of this kind."""
    heads: ClassVar[tuple[Head, ...]] = ("pooler",)
    """Heads of the pretrained model that it needs."""
    optional_heads: ClassVar[tuple[Head, ...]] = ()
    """Heads that it takes over from a pretrained model that has them."""
    in_percent: ClassVar[bool] = False
    """True if all its figures are in 0..100, except losses and thresholds."""

    @abstractmethod
    def read_split(
        self, entry: Entry, split: str, options: FinetuneConfig, labelled: bool
    ) -> list[ExampleT]:
        """Return the examples of a split; if `labelled`, each must have a label.

        Raises `UserError` that names the file and the line of what is wrong.
        """

    @abstractmethod
    def make_task(
        self,
        name: str,
        examples: Sequence[ExampleT],
        options: FinetuneConfig,
        tokenizer: Tokenizer,
    ) -> TaskT:
        """Return the task called `name`, with what its training examples decide, as its labels."""

    @abstractmethod
    def mistakes(
        self, task: TaskT, predictions: Sequence[PredictionT], examples: Sequence[ExampleT]
    ) -> Iterable[Mistake]:
        """Yield the wrong predictions, in the order of the examples."""

    @abstractmethod
    def write_predictions(
        self,
        folder: epath.Path,
        predicted: PredictedSplit[ExampleT, PredictionT],
        options: FinetuneConfig,
    ) -> list[epath.Path]:
        """Write a split's predictions in the usual format of the field; return the files."""

    def knows(self, name: str) -> bool:
        """Return whether `name` is a data set of this kind, so that no kind need be given."""
        return name.lower() in self.data_sets

    def canonical_name(self, name: str) -> str:
        """Return the usual spelling of one of `data_sets`."""
        return name

    def validation_splits(self, entry: Entry) -> tuple[str, ...]:
        """Return the names of the validation splits; the first chooses the checkpoint."""
        return ("validation",)

    def test_splits(self, entry: Entry) -> tuple[str, ...]:
        """Return the names of the splits that are predicted for a test set."""
        return ("test",)

    def possible_metrics(self, entry: Entry) -> tuple[str, ...]:
        """Return what the metric of this task may be; reports show the first that is there."""
        return self.metrics

    def used_options(self, entry: Entry, options: FinetuneConfig) -> frozenset[str]:
        """Return which of `label_smoothing`, `class_weights`, `decoder_from` have an effect."""
        return frozenset()

    def check_options(self, entry: Entry, options: FinetuneConfig) -> None:
        """Raise `UserError` for an option that is set and would have no effect on this task."""
        used = self.used_options(entry, options)
        check(
            options.class_weights == "none" or CLASS_WEIGHTS in used,
            where="finetune.class_weights",
            found=options.class_weights,
            expected=f"none, for {entry.name}",
        )
        check(
            options.label_smoothing == 0 or LABEL_SMOOTHING in used,
            where="finetune.label_smoothing",
            found=options.label_smoothing,
            expected=f"0, for {entry.name}",
        )
        check(
            not options.decoder_from or DECODER_FROM in used,
            where="finetune.decoder_from",
            found=options.decoder_from,
            expected=f"none, for {entry.name}",
        )

    def to_dict(self, task: TaskT) -> dict[str, Any]:
        """Return a task's fields as JSON has them, for a checkpoint's `meta`."""
        return dataclasses.asdict(task)  # type: ignore[call-overload]

    def from_dict(self, values: Mapping[str, Any]) -> TaskT:
        """Return the task of which `to_dict` gave `values`, after a trip through JSON."""
        return self.task_classes[0](**with_tuples(values))  # type: ignore[return-value]

    def majority_baseline(self, task: TaskT, examples: Sequence[ExampleT]) -> float:
        """Return the task's metric, in 0..1, of the best constant prediction; 0 if there is none.

        A run that scores no better counts as failed, as in arXiv 2006.04884.
        """
        return 0.0

    def error_tables(
        self, task: TaskT, predictions: Sequence[PredictionT], examples: Sequence[ExampleT]
    ) -> dict[str, Any]:
        """Return `errors`, the worst mistakes, and tables of the predictions, as JSON.

        Each error has `text`, `expected` and `predicted`. `confusion` and `calibration` are there
        for kinds that predict classes with probabilities (`bertjax.tasks.error_tables`).
        """
        return {"errors": worst_mistakes(self.mistakes(task, predictions, examples))}

    def choose_threshold(
        self, task: TaskT, predictions: Sequence[PredictionT], examples: Sequence[ExampleT]
    ) -> float | None:
        """Return the decision threshold with the best metric on `examples`; None without one."""
        return None

    def with_threshold(self, task: TaskT, threshold: float) -> TaskT:
        """Return the task with this decision threshold, if tasks of its kind have one."""
        return task

    def task_head(self, task: TaskT) -> TaskHead | None:
        """Return the description of the head for exports; None where the head is not linear."""
        return None


def with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with tuples in place of lists, which is what JSON makes of tuples."""
    return {name: _with_tuple(value) for name, value in values.items()}


def _with_tuple(value: Any) -> Any:
    # Tasks are hashed where compiled programs are kept, and a list has no hash.
    return tuple(value) if isinstance(value, list) else value
