"""The base class of all kinds of task, and the class for an entry of `finetune.tasks`.

Each kind is a folder beside this file. Its `kind.py` has everything that is different for each
kind: how examples are read, how a task is made from them, and how predictions are written.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from etils import epath

from bertjax.config import FinetuneConfig, Head
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.json_values import record
from bertjax.tasks.error_tables import Mistake, worst_mistakes
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.metric_table import Metric
from bertjax.tasks.task import Task
from bertjax.tasks.task_head import TaskHead
from bertjax.tasks.text_lines import ExampleT, PredictionT, TaskT, TextLines

AUTO = "auto"
"""The value of an option that lets the data choose."""
LABEL_SMOOTHING, CLASS_WEIGHTS = "label_smoothing", "class_weights"
DECODER_FROM = "decoder_from"
ANSWER_RULE, UNANSWERABLE = "answer_rule", "unanswerable"
BLEU_TOKENIZER = "bleu_tokenizer"
FILE_FORM, ENCODING, LABEL_COLUMNS = "file_form", "encoding", "label_columns"
LABEL_NAMES, STRICT_ENTITIES = "label_names", "strict_entities"
KEEP_GOLD_TAGS = "keep_gold_tags"
"""Fields of `FinetuneConfig` that only some kinds use (see `Kind.used_options`)."""
UNSET: Mapping[str, object] = {
    CLASS_WEIGHTS: "none",
    LABEL_SMOOTHING: 0,
    DECODER_FROM: "",
    ANSWER_RULE: AUTO,
    UNANSWERABLE: False,
    BLEU_TOKENIZER: AUTO,
    FILE_FORM: "table",
    ENCODING: "utf-8",
    LABEL_COLUMNS: (),
    LABEL_NAMES: (),
    STRICT_ENTITIES: False,
    KEEP_GOLD_TAGS: False,
}
"""The values of these fields that any task may have, since they change nothing."""
TAG_OPTIONS = frozenset({LABEL_NAMES, STRICT_ENTITIES, KEEP_GOLD_TAGS})
"""Those about tags. Where there are several tasks, one may have tags and the others none."""


@dataclass(frozen=True)
class Entry:
    """One entry of `finetune.tasks`."""

    name: str
    kind: str
    """The name of the task's kind, a key of `bertjax.tasks.registry.KINDS`."""
    location: DataLocation


@dataclass(frozen=True)
class PredictedSplit(Generic[ExampleT, PredictionT]):
    """The examples of a split, and a prediction for each."""

    entry: Entry
    split: str
    examples: Sequence[ExampleT]
    predictions: Sequence[PredictionT]

    def file_name(self, ending: str, part: str = "") -> str:
        """Return TASK-SPLIT.ENDING, or TASK-SPLIT-PART.ENDING for one of several files."""
        parts = [self.entry.name, self.split, part]
        return "-".join(filter(None, parts)) + f".{ending}"


class Kind(TextLines[TaskT, ExampleT, PredictionT]):
    """Everything that is different for each kind of task.

    Each kind must define the abstract methods. The other methods have a default, which many kinds
    keep.
    """

    name: ClassVar[str]
    """The name of the kind in `finetune.tasks` and in checkpoints."""
    task_classes: ClassVar[tuple[type[Task], ...]]
    """The classes of this kind's tasks."""
    metrics: ClassVar[tuple[str, ...]]
    """Values of `Task.metric` where none is chosen; a report shows the first that the run has."""
    choosable: ClassVar[tuple[Metric, ...]] = ()
    """The metrics that `finetune.metric` may name; the report has their scales from here."""
    data_sets: ClassVar[tuple[str, ...]] = ()
    """Names of tasks for which this kind is the default."""
    heads: ClassVar[tuple[Head, ...]] = ("pooler",)
    """Heads of the pretrained model that the kind needs."""
    optional_heads: ClassVar[tuple[Head, ...]] = ()
    """Heads that the kind uses if the pretrained model has them."""
    in_percent: ClassVar[bool] = False
    """True if all figures, except losses and thresholds, are in 0..100."""
    newer_fields: ClassVar[frozenset[str]] = frozenset({"metrics"})
    """Fields of tasks that earlier versions have not; at their default they are not written."""

    @abstractmethod
    def read_split(
        self, entry: Entry, split: str, options: FinetuneConfig, labelled: bool
    ) -> list[ExampleT]:
        """Return the examples of a split; if `labelled` is true, each must have a label.

        Raises `UserError` with the file and the line of the first mistake.
        """

    @abstractmethod
    def make_task(
        self,
        name: str,
        examples: Sequence[ExampleT],
        options: FinetuneConfig,
        tokenizer: Tokenizer,
    ) -> TaskT:
        """Return the task `name`; its labels and the like come from the training `examples`."""

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
        """Write a split's predictions in the usual format for the kind; return the files.

        Their names are `file_name` of the split, so that all kinds name them in one way.
        """

    def knows(self, name: str) -> bool:
        """Return whether `name` is one of `data_sets`, which need no kind in `finetune.tasks`."""
        return name.lower() in self.data_sets

    def canonical_name(self, name: str) -> str:
        """Return the usual spelling of one of `data_sets`."""
        return name

    def validation_splits(self, entry: Entry) -> tuple[str, ...]:
        """Return the names of the validation splits; the first one selects the checkpoint."""
        return ("validation",)

    def test_splits(self, entry: Entry) -> tuple[str, ...]:
        """Return the names of the splits that `test` stands for in a prediction."""
        return ("test",)

    def possible_metrics(self, entry: Entry) -> tuple[str, ...]:
        """Return what `Task.metric` may be where none is chosen; a report shows the first found."""
        return self.metrics

    def choosable_metrics(self, entry: Entry, options: FinetuneConfig) -> tuple[Metric, ...]:
        """Return the metrics that may be chosen, as far as this is known before the data."""
        return self.choosable

    def task_metrics(self, task: TaskT) -> tuple[Metric, ...]:
        """Return the metrics that may be chosen for this task."""
        return self.choosable

    def metric_classes(self, task: TaskT) -> tuple[str, ...]:
        """Return the classes that may follow the colon of a metric of one class."""
        return ()

    def metric_class(self, task: TaskT, metric: str) -> str | None:
        """Return the class whose metric this is; None for the metric of all classes."""
        _, colon, label = metric.partition(":")
        return label if colon else None

    def classes_in(self, task: TaskT, examples: Sequence[ExampleT]) -> Collection[str]:
        """Return those of `metric_classes` that the examples have."""
        return self.metric_classes(task)

    def with_metrics(self, task: TaskT, metrics: tuple[str, ...]) -> TaskT:
        """Return the task with these metrics; the first chooses the checkpoint."""
        return dataclasses.replace(task, metrics=metrics)  # type: ignore[type-var]

    def for_evaluation(self, task: TaskT, options: FinetuneConfig) -> TaskT:
        """Return a checkpoint's task with those options that change its figures alone."""
        return task

    def used_options(self, entry: Entry, options: FinetuneConfig) -> frozenset[str]:
        """Return the names of the options among those of `check_options` that have an effect."""
        return frozenset()

    def check_options(self, entry: Entry, options: FinetuneConfig) -> None:
        """Raise `UserError` if an option is set that has no effect on this task."""
        used = self.used_options(entry, options)
        if not entry.location.has_files:
            used -= {FILE_FORM, ENCODING}
        for name, unset in UNSET.items():
            value = getattr(options, name)
            if name in TAG_OPTIONS and len(options.tasks) > 1:
                continue
            check(
                value == unset or name in used,
                where=f"finetune.{name}",
                found=value,
                expected=f"{'none' if unset in ('', ()) else unset}, for {entry.name}",
            )

    def check_split(
        self, entry: Entry, split: str, task: TaskT, examples: Sequence[ExampleT]
    ) -> None:
        """Raise `UserError`, naming the files, for a split whose figures the task cannot have."""
        return

    def signatures(self, task: TaskT, examples: Sequence[ExampleT]) -> dict[str, str]:
        """Return how metrics are computed, by name, where the name alone does not say it."""
        return {}

    def to_dict(self, task: TaskT) -> dict[str, Any]:
        """Return a task's fields as values for JSON; a checkpoint's `meta` has them.

        Without newer options a task is written as before they existed (`newer_fields`).
        """
        values: dict[str, Any] = dataclasses.asdict(task)  # type: ignore[call-overload]
        for field in dataclasses.fields(task):  # type: ignore[arg-type]
            if field.name in self.newer_fields and values[field.name] == field.default:
                del values[field.name]
        return values

    def from_dict(self, values: Mapping[str, Any], where: str) -> TaskT:
        """Return the task from `values`, the result of `to_dict` after it was read from JSON.

        Raises `UserError`, naming `where`, for fields that it has not, or of another type.
        """
        return record(self.task_classes[0], values, where)  # type: ignore[return-value]

    def majority_baseline(self, task: TaskT, examples: Sequence[ExampleT]) -> float | None:
        """Return the task's score for the best constant prediction; 0 if there is none.

        The result may be None if no model can get a higher score.
        A run whose score is not better than this counts as failed, as in arXiv 2006.04884.
        """
        return 0.0

    def is_constant(
        self, task: TaskT, figures: Mapping[str, float], examples: Sequence[ExampleT]
    ) -> bool:
        """Return whether the figures show one answer for all, where the metric cannot show it.

        The recall of a class is 1 for a model that always answers this class, and no model exceeds
        that, so it is no baseline.
        """
        return False

    @abstractmethod
    def shown_answer(self, prediction: PredictionT) -> str:
        """Return what a prediction answers as text for a reader, without its probability."""

    def constant_answer(
        self, task: TaskT, predictions: Sequence[PredictionT], examples: Sequence[ExampleT]
    ) -> str | None:
        """Return the answer of a model that answers the same for all examples, else None.

        The result is None for a single example, and if all the answers are right.
        """
        answers = {self.shown_answer(prediction) for prediction in predictions}
        if len(answers) != 1 or len(predictions) < 2:
            return None
        is_wrong = any(True for _ in self.mistakes(task, predictions, examples))
        return answers.pop() if is_wrong else None

    def error_tables(
        self, task: TaskT, predictions: Sequence[PredictionT], examples: Sequence[ExampleT]
    ) -> dict[str, Any]:
        """Return `errors`, the worst mistakes, and tables of the predictions, as JSON.

        Each error has `text`, `expected` and `predicted`. Kinds that predict classes may also have
        `class_scores` (`bertjax.tasks.class_scores.class_table`), `confusion`, and `calibration` if
        they predict probabilities (`bertjax.tasks.error_tables`).
        """
        return {"errors": worst_mistakes(self.mistakes(task, predictions, examples))}

    def choose_threshold(
        self, task: TaskT, predictions: Sequence[PredictionT], examples: Sequence[ExampleT]
    ) -> float | None:
        """Return the decision threshold with the best metric; None if the task has no threshold."""
        return None

    def with_threshold(self, task: TaskT, threshold: float) -> TaskT:
        """Return the task with this decision threshold, if tasks of its kind have one."""
        return task

    def task_head(self, task: TaskT) -> TaskHead | None:
        """Return the description of the head for exports; None if the head is not linear."""
        return None
