"""Base class of tasks on a sentence or a pair: one linear layer on the sentence vector.

These are the tasks of section 4.1 of arXiv 1810.04805. The files beside this one define three
subclasses of `TextTask`: `SingleLabel`, `MultiLabel` and `Regression`.
"""

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.model.linear_head import init_linear
from bertjax.tasks.classification.labels import Label, LabelType
from bertjax.tasks.classification.unseen import check_classes
from bertjax.tasks.encode_pairs import encode_pairs
from bertjax.tasks.examples import TextExample
from bertjax.tasks.linear_head import head_of, pooled_logits
from bertjax.tasks.metric_table import Metric, Scale, metric_named
from bertjax.tasks.task import EncodedExamples, LinearHeadTask
from bertjax.types import Batch

log = logging.getLogger("bertjax")


@dataclass(frozen=True)
class TextTask(LinearHeadTask):
    """Base class of the tasks on texts.

    Raises `UserError` for a metric that does not fit the labels, for a wrong number of labels, and
    for options out of range.
    """

    name: str
    labels: tuple[str, ...] = ()
    """The classes in the order of the head's outputs; empty if a number is predicted."""
    metrics: tuple[str, ...] = ()
    """Names of the metrics; the first selects the best checkpoint; empty: `default_metrics`."""
    label_smoothing: float = 0.0
    """Share of the probability that the loss spreads over all classes (arXiv 1512.00567)."""
    class_weights: tuple[float, ...] = ()
    """The weight of each class in the loss; empty: all weights are 1."""

    per_token = False
    label_type: ClassVar[LabelType]
    """The value of `label_type` in configurations and checkpoints."""
    choosable: ClassVar[tuple[Metric, ...]]
    """The metrics of all tasks of the class."""
    default_metrics: ClassVar[tuple[str, ...]]
    problem_type: ClassVar[str]
    """The value of `problem_type` in the config.json of `transformers`."""

    def __post_init__(self) -> None:
        self._check_labels()
        where, count = f"task {self.name}", len(self.labels)
        check(
            len(set(self.labels)) == count,
            where=f"{where}: labels",
            found=", ".join(self.labels),
            expected="each once",
        )
        for metric in self.metrics:
            _, colon, label = metric.partition(":")
            check(
                metric_named(self.own_metrics, metric) and (not colon or label in self.labels),
                where=f"{where}: metrics",
                found=metric,
                expected=f"one of {', '.join(each.shown for each in self.own_metrics)}",
            )
        check(
            # At 1 the true class would count no more than any other.
            0 <= self.label_smoothing < 1,
            where=f"{where}: label_smoothing",
            found=self.label_smoothing,
            expected="a number from 0 to below 1",
        )
        check(
            self.label_smoothing == 0 or count > 0,
            where=f"{where}: label_smoothing",
            found=self.label_smoothing,
            expected="0 where a number is predicted",
        )
        weights = self.class_weights
        positive = all(0 < weight < float("inf") for weight in weights)
        check(
            positive and len(weights) in (0, count),
            where=f"{where}: class_weights",
            found=weights,
            expected=f"{count} numbers above 0, one a label",
        )

    @abstractmethod
    def _check_labels(self) -> None:
        """Raise `UserError` unless the number of labels fits the type of the task."""

    def _check_label_count(self, fits: bool, expected: str) -> None:
        check(
            fits,
            where=f"task {self.name}: labels",
            found=", ".join(self.labels) or "none",
            expected=expected,
        )

    @property
    def metric(self) -> str:
        """The name of the figure that selects the best checkpoint."""
        return self.figure_names[0]

    @property
    def metric_scale(self) -> Scale:
        """The scale of that figure."""
        metric = metric_named(self.own_metrics, self.metric)
        assert metric is not None, self.metric
        return metric.scale

    @property
    def own_metrics(self) -> tuple[Metric, ...]:
        """The metrics that this task may have; all of `choosable` unless a subclass overrides."""
        return self.choosable

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The names of all figures, the metric first."""
        return self.metrics or self.default_metrics

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """Return a new linear layer with one output for each label, or one output for a number."""
        return init_linear(config, key, max(1, len(self.labels)))

    def head_logits(
        self,
        config: ModelConfig,
        params: Params,
        hidden_BxLxD: Array,
        rows: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """Return the logits of the labels, float32 [B, C], or the predicted number, [B, 1]."""
        head = head_of(params, self.name)
        return pooled_logits(
            config, params, head, hidden_BxLxD, rows["input_mask"], key=key, layout=layout
        )

    def encode(
        self,
        examples: Sequence[TextExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> EncodedExamples:
        """Return a row for each example, made by `bertjax.tasks.encode_pairs`.

        The log says how many rows were cut. If `targets` is true, the result has the target
        `labels` from the method `targets`, which raises `UserError` for an example without a label.
        The log then says how many examples have labels that the task does not have
        (`bertjax.tasks.classification.unseen`).
        """
        target_arrays = {}
        if targets:
            check_classes(self.name, self.labels, examples)
            target_arrays["labels"] = self.targets(examples)
        encoded = encode_pairs(tokenizer, examples, max_seq_length)
        if encoded.truncated:
            log.info(
                "%s: texts cut to %d ids: %d of %d",
                self.name,
                max_seq_length,
                encoded.truncated,
                len(examples),
            )
        return EncodedExamples(
            encoded.ids, encoded.offsets, encoded.second, np.arange(len(examples)), target_arrays
        )

    @abstractmethod
    def sums(self, logits: Array, batch: Batch) -> dict[str, Array]:
        """Return sums over the batch, as `bertjax.tasks.task.TaskModel.sums` describes them."""

    @abstractmethod
    def predict(
        self,
        outputs: Sequence[np.ndarray],
        encoded: EncodedExamples,
        examples: Sequence[TextExample],
    ) -> list[Any]:
        """Return a prediction for each example; `outputs` has one array for each example."""

    @abstractmethod
    def figures(
        self, predictions: Sequence[Any], examples: Sequence[TextExample]
    ) -> dict[str, float]:
        """Return the task's figures by name."""

    @abstractmethod
    def targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        """Return the labels of all examples as an array.

        Raises `UserError` for an example without a label. Classes that the task does not have are
        left out of the loss.
        """

    @abstractmethod
    def mistake_severity(self, prediction: Any, example: TextExample) -> float | None:
        """Return a measure of how wrong a prediction is; None if the prediction is right."""

    def majority_baseline(self, examples: Sequence[TextExample]) -> float | None:
        """Return the score of the best constant prediction; 0 unless a subclass overrides it."""
        return 0.0

    def is_constant(self, figures: Mapping[str, float], examples: Sequence[TextExample]) -> bool:
        """Return False, or what a subclass says: see `bertjax.tasks.kind.Kind.is_constant`."""
        return False

    def prediction_tables(
        self, predictions: Sequence[Any], examples: Sequence[TextExample]
    ) -> dict[str, Any]:
        """Return the tables of the predictions that `Kind.error_tables` adds to the errors."""
        return {}

    def _item_weights(self, batch: Batch) -> Array:
        """Return the weight of each item, float32 [B]."""
        return batch["item_weights"].astype(jnp.float32)

    def _place(self, example: TextExample) -> str:
        return f"task {self.name}, example {example.id}"

    def _known_label(self, example: TextExample) -> Label:
        """Return the label of an example; raises `UserError` if it has none."""
        check(
            example.label is not None, where=self._place(example), found="no label", expected="one"
        )
        return example.label

    def _label_ids(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}
