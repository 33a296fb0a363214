"""Classification of texts that have exactly one class each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.tasks import metrics
from bertjax.tasks.class_scores import class_figure, class_table, count_classes
from bertjax.tasks.classification.class_figures import (
    MATTHEWS,
    OF_ALL_CLASSES,
    OF_ONE_CLASS,
    OF_SECOND_CLASS,
)
from bertjax.tasks.classification.predictions import ClassPrediction
from bertjax.tasks.classification.task import TextTask
from bertjax.tasks.error_tables import are_finite, calibration_table, confusion_table
from bertjax.tasks.examples import TextExample
from bertjax.tasks.metric_table import Metric
from bertjax.tasks.metrics import Bin
from bertjax.tasks.task import EncodedExamples
from bertjax.types import Batch

UNSEEN = -1
"""The class number of a label that training does not have."""


@dataclass(frozen=True)
class SingleLabel(TextTask):
    """A task that predicts one of two or more classes by a softmax over the head's outputs."""

    label_type = "class"
    choosable = (
        Metric("accuracy"),
        MATTHEWS,
        *OF_SECOND_CLASS,
        *OF_ONE_CLASS,
        *OF_ALL_CLASSES,
    )
    default_metrics = ("accuracy",)
    problem_type = "single_label_classification"

    @property
    def own_metrics(self) -> tuple[Metric, ...]:
        """The metrics of this task: three or more classes have no positive one."""
        if len(self.labels) == 2:
            return self.choosable
        return tuple(metric for metric in self.choosable if metric not in OF_SECOND_CLASS)

    def _check_labels(self) -> None:
        self._check_label_count(len(self.labels) >= 2, "2 or more")

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The names of all figures, the metric first; `accuracy` is always among them."""
        names = super().figure_names
        return names if "accuracy" in names else (*names, "accuracy")

    def count(self, batch: Batch) -> Array:
        """Return the sum over the items of (item weight) * (weight of the item's class)."""
        return jnp.sum(self._class_item_weights(batch))

    def sums(self, logits: Array, batch: Batch) -> dict[str, Array]:
        """Return `loss`, `count`, and `accuracy`, the total weight of the right predictions.

        The loss is softmax cross-entropy in nats. With `label_smoothing` e (arXiv 1512.00567) and
        `class_weights` w, an item of class y has the loss
        (1 - e) w_y nll_y + (e / C) sum_c w_c nll_c
        and the count w_y. `loss` / `count` is therefore the result of PyTorch's
        CrossEntropyLoss(weight, label_smoothing=e): both parts of the loss are divided by the
        weights of the true classes.

        `batch["labels"]` is int32 [B]. An item of weight 0 changes neither the sums nor the
        gradients, even if its label is invalid or its logits are NaN; so does an item whose label
        is `UNSEEN`.
        """
        weights = self._class_item_weights(batch)
        is_real_Bx1 = (self._item_weights(batch) > 0)[:, None]
        # The logits of padding are replaced before the softmax. If this were done after it, NaN
        # logits of padding would give NaN gradients, because 0 * NaN is NaN.
        logits = jnp.where(is_real_Bx1, logits.astype(jnp.float32), 0)
        class_weights_1xC = jnp.asarray(self._class_weights(), jnp.float32)[None, :]
        e = self.label_smoothing
        labels = self._class_ids(batch)
        nll = -jax.nn.log_softmax(logits)
        true = jax.nn.one_hot(labels, len(self.labels), dtype=jnp.float32)
        smoothed = (1 - e) * true + e / len(self.labels)
        losses = jnp.sum(smoothed * class_weights_1xC * nll, axis=1)
        right = (jnp.argmax(logits, axis=1) == labels).astype(jnp.float32)
        return {
            # Without the weights of the classes, which `losses` have already.
            "loss": jnp.sum(self._item_weights(batch) * losses),
            "count": jnp.sum(weights),
            "accuracy": jnp.sum(weights * right),
        }

    def outputs(self, logits: Array) -> Array:
        """Return the probability of each label, float32 [B, C]."""
        return jax.nn.softmax(logits.astype(jnp.float32))

    def targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        """Return each example's class number, int32 [examples], or `UNSEEN`."""
        numbers = self._label_ids()
        classes = np.zeros(len(examples), np.int32)
        for index, example in enumerate(examples):
            classes[index] = numbers.get(str(self._known_label(example)), UNSEEN)
        return classes

    def predict(
        self,
        outputs: Sequence[np.ndarray],
        encoded: EncodedExamples,
        examples: Sequence[TextExample],
    ) -> list[ClassPrediction]:
        """Return the most probable class of each example."""
        predictions = []
        for output in outputs:
            probabilities = tuple(np.asarray(output, np.float64).tolist())
            label = self.labels[probabilities.index(max(probabilities))]
            predictions.append(ClassPrediction(label, probabilities))
        return predictions

    def figures(
        self, predictions: Sequence[ClassPrediction], examples: Sequence[TextExample]
    ) -> dict[str, float]:
        """Return the task's metrics and `accuracy` by name, equal to scikit-learn's.

        `f1`, `precision` and `recall` are those of the second label. Averages are over the classes
        that occur, among the examples or the predictions. A class that only the examples have
        counts as never predicted.
        """
        labels, true, predicted = self._compared(predictions, examples)
        return {name: _figure(name, labels, true, predicted) for name in self.figure_names}

    def _compared(
        self, predictions: Sequence[ClassPrediction], examples: Sequence[TextExample]
    ) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Return the labels with those that only `examples` have, and true and predicted ids.

        The ids are int64 [N].
        """
        true = [str(self._known_label(example)) for example in examples]
        labels = list(dict.fromkeys([*self.labels, *true]))
        numbers = {label: number for number, label in enumerate(labels)}
        true_ids = np.array([numbers[label] for label in true], np.int64)
        predicted = [numbers[prediction.label] for prediction in predictions]
        return labels, true_ids, np.array(predicted, np.int64)

    def majority_baseline(self, examples: Sequence[TextExample]) -> float | None:
        """Return the highest metric of one class for all examples that a perfect model exceeds.

        None if there is no such value, as where all examples have the same class.
        """
        labels, true, _ = self._compared((), examples)
        perfect = _figure(self.metric, labels, true, true)
        if self.metric == MATTHEWS.name:
            # A constant has no correlation; the matrices of all would take seconds to see it.
            return 0.0 if perfect > 0 else None
        # To predict a class that no example has gives 0 for every metric, so one such is enough.
        known = np.bincount(true, minlength=len(labels))[: len(self.labels)]
        classes = np.flatnonzero(known) if known.any() else np.arange(1)
        values = [_figure(self.metric, labels, true, np.full_like(true, each)) for each in classes]
        # To predict a class always gives a recall of 1 for it, which no model could exceed.
        return max((value for value in values if value < perfect), default=None)

    def is_constant(self, figures: Mapping[str, float], examples: Sequence[TextExample]) -> bool:
        """Return whether the metric is the recall of a class, which alone is ever right.

        The accuracy is then the share of this class, unless other examples are right too.
        """
        base, _, label = self.metric.partition(":")
        if base != "recall":
            return False
        label = label or self.labels[1]
        of_class = sum(example.label == label for example in examples)
        has_others = of_class < len(examples)
        right = round(figures["accuracy"] * len(examples))
        return has_others and figures[self.metric] == 1 and right <= of_class

    def class_table(
        self, predictions: Sequence[ClassPrediction], examples: Sequence[TextExample]
    ) -> dict[str, Any]:
        """Return precision, recall and F1 of the classes that occur (`class_scores`)."""
        labels, true, predicted = self._compared(predictions, examples)
        counts = count_classes(true, predicted, len(labels))
        occurs = set(true.tolist()) | set(predicted.tolist())
        occurring = [label for number, label in enumerate(labels) if number in occurs]
        return class_table(occurring, counts.occurring())

    def confusion(
        self, predictions: Sequence[ClassPrediction], examples: Sequence[TextExample]
    ) -> np.ndarray:
        """Return int64 [C, C]: numbers of examples by true class (rows) and predicted (columns).

        Labels that only `examples` have come after those of the task.
        """
        labels, true, predicted = self._compared(predictions, examples)
        return metrics.confusion_matrix(true, predicted, len(labels))

    def calibration(
        self, predictions: Sequence[ClassPrediction], examples: Sequence[TextExample]
    ) -> list[Bin]:
        """Return the reliability table of the probabilities of the predicted classes."""
        probabilities = _probability_array(predictions, len(self.labels))
        right = self._predicted_ids(predictions) == self.targets(examples)
        return metrics.reliability(probabilities.max(1), right)

    def prediction_tables(
        self, predictions: Sequence[Any], examples: Sequence[TextExample]
    ) -> dict[str, Any]:
        """Return `class_scores`, `confusion` and, if probabilities are finite, `calibration`."""
        labels, _, _ = self._compared(predictions, examples)
        tables = {
            "class_scores": self.class_table(predictions, examples),
            "confusion": confusion_table(labels, self.confusion(predictions, examples)),
        }
        if are_finite(prediction.probabilities for prediction in predictions):
            tables["calibration"] = calibration_table(self.calibration(predictions, examples))
        return tables

    def mistake_severity(self, prediction: ClassPrediction, example: TextExample) -> float | None:
        """Return 1 - (probability of the true class); None if the predicted class is right."""
        if prediction.label == example.label:
            return None
        if example.label not in self.labels:
            return 1.0
        return 1 - prediction.probabilities[self.labels.index(str(example.label))]

    def _class_weights(self) -> tuple[float, ...]:
        return self.class_weights or (1.0,) * len(self.labels)

    def _class_item_weights(self, batch: Batch) -> Array:
        """Return (item weight) * (weight of the item's class) for each item, float32 [B]."""
        weights = self._item_weights(batch)
        if not self.class_weights:
            return weights
        return weights * jnp.asarray(self.class_weights, jnp.float32)[self._class_ids(batch)]

    def _item_weights(self, batch: Batch) -> Array:
        """Return the weight of each item in the loss, float32 [B]; 0 for the label `UNSEEN`."""
        return jnp.where(batch["labels"] == UNSEEN, 0, super()._item_weights(batch))

    def _class_ids(self, batch: Batch) -> Array:
        """Return the class number of each item, int [B]; 0 for the items of weight 0."""
        return jnp.where(self._item_weights(batch) > 0, batch["labels"], 0)

    def _predicted_ids(self, predictions: Sequence[ClassPrediction]) -> np.ndarray:
        numbers = self._label_ids()
        return np.array([numbers[prediction.label] for prediction in predictions], np.int64)


def _figure(name: str, labels: Sequence[str], true: np.ndarray, predicted: np.ndarray) -> float:
    """Return a metric of class ids, [N] each; `labels` are the names of the classes."""
    if name == "accuracy":
        return metrics.accuracy(true, predicted)
    if name == MATTHEWS.name:
        return metrics.matthews_correlation(true, predicted, len(labels))
    counts = count_classes(true, predicted, len(labels))
    return class_figure(name, labels, counts, counts.occurring())


def _probability_array(predictions: Sequence[ClassPrediction], classes: int) -> np.ndarray:
    """Return the probabilities of all predictions, float64 [predictions, classes]."""
    probabilities = [prediction.probabilities for prediction in predictions]
    return np.array(probabilities).reshape(-1, classes)
