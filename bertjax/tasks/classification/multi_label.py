"""Classification of texts that can have any number of classes each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.model.heads.soft_targets import soft_binary_losses
from bertjax.tasks import metrics
from bertjax.tasks.class_scores import class_figure, class_table, count_decisions
from bertjax.tasks.classification.class_figures import (
    OF_ALL_CLASSES,
    OF_ONE_CLASS,
)
from bertjax.tasks.classification.labels import classes_of
from bertjax.tasks.classification.predictions import THRESHOLD, LabelSetPrediction
from bertjax.tasks.classification.task import TextTask
from bertjax.tasks.error_tables import are_finite, calibration_table
from bertjax.tasks.examples import TextExample
from bertjax.tasks.metric_table import Metric
from bertjax.tasks.metrics import Bin
from bertjax.tasks.task import EncodedExamples
from bertjax.types import Batch


@dataclass(frozen=True)
class MultiLabel(TextTask):
    """A task that predicts a set of classes; a sigmoid is applied to each output of the head."""

    label_type = "classes"
    choosable = (*OF_ALL_CLASSES, *OF_ONE_CLASS, Metric("exact_match"))
    default_metrics = ("f1_micro", "f1_macro", "exact_match")
    problem_type = "multi_label_classification"

    def _check_labels(self) -> None:
        self._check_label_count(len(self.labels) >= 1, "1 or more")

    def sums(self, logits: Array, batch: Batch) -> dict[str, Array]:
        """Return `loss` and `count`.

        The loss of an item is the mean over the classes of the sigmoid cross-entropy in nats; the
        mean is weighted with `class_weights`. With `label_smoothing` e, a target y becomes
        y (1 - e) + e/2.

        `batch["labels"]` is float32 [B, C] with values 0 and 1. An item of weight 0 changes neither
        the sums nor the gradients, even if its labels or logits are NaN.
        """
        weights = self._item_weights(batch)
        is_real_Bx1 = (batch["item_weights"] > 0)[:, None]
        # Before the sigmoid, as in `SingleLabel.sums`: a weight of 0 does not remove NaN.
        logits = jnp.where(is_real_Bx1, logits.astype(jnp.float32), 0)
        class_weights = self.class_weights or (1.0,) * len(self.labels)
        class_weights_1xC = jnp.asarray(class_weights, jnp.float32)[None, :]
        e = self.label_smoothing
        true = jnp.where(is_real_Bx1, batch["labels"].astype(jnp.float32), 0)
        targets = true * (1 - e) + e / 2
        # The loss is -y log s(x) - (1 - y) log s(-x) with s the sigmoid. As log s(-x) is
        # log s(x) - x, one logarithm is enough, and nothing overflows.
        losses = (1 - targets) * logits - jax.nn.log_sigmoid(logits)
        # Divided by the weights' sum, so that a common factor of them changes nothing.
        mean = jnp.sum(losses * class_weights_1xC, axis=1) / jnp.sum(class_weights_1xC)
        return {"loss": jnp.sum(weights * mean), "count": jnp.sum(weights)}

    def soft_losses(self, logits: Array, taught: Array, batch: Batch, temperature: float) -> Array:
        """Return the mean loss over the classes for each item, [B]."""
        is_real_Bx1 = batch["item_weights"][:, None] > 0
        own, taught = jnp.where(is_real_Bx1, logits, 0), jnp.where(is_real_Bx1, taught, 0)
        return jnp.mean(soft_binary_losses(own, taught, temperature), axis=1)

    def outputs(self, logits: Array) -> Array:
        """Return the probability of each label, float32 [B, C]."""
        return jax.nn.sigmoid(logits.astype(jnp.float32))

    def targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        """Return float32 [examples, C]: 1 if the example has the class, else 0.

        A class that training does not have is left out. Raises `UserError` as `TextTask.targets`.
        """
        numbers = self._label_ids()
        has_class = np.zeros((len(examples), len(self.labels)), np.float32)
        for index, example in enumerate(examples):
            self._known_label(example)
            for name in classes_of(example):
                if name in numbers:
                    has_class[index, numbers[name]] = 1
        return has_class

    def predict(
        self,
        outputs: Sequence[np.ndarray],
        encoded: EncodedExamples,
        examples: Sequence[TextExample],
    ) -> list[LabelSetPrediction]:
        """Return for each example the classes with a probability of `THRESHOLD` or more."""
        predictions = []
        for output in outputs:
            probabilities = np.asarray(output, np.float64).tolist()
            pairs = zip(self.labels, probabilities, strict=True)
            labels = tuple(label for label, probability in pairs if probability >= THRESHOLD)
            predictions.append(LabelSetPrediction(labels, tuple(probabilities)))
        return predictions

    def figures(
        self, predictions: Sequence[LabelSetPrediction], examples: Sequence[TextExample]
    ) -> dict[str, float]:
        """Return the task's metrics by name, equal to scikit-learn's.

        `exact_match` is the share of examples with exactly the right set of classes. Averages are
        over all classes. A class that only the examples have counts as never predicted.
        """
        labels, true, predicted = self._compared(predictions, examples)
        counts = count_decisions(true, predicted)
        figures = {}
        for name in self.figure_names:
            if name == "exact_match":
                figures[name] = metrics.accuracy(true, predicted)
            else:
                figures[name] = class_figure(name, labels, counts)
        return figures

    def _compared(
        self, predictions: Sequence[LabelSetPrediction], examples: Sequence[TextExample]
    ) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Return the labels with those that only `examples` have, and bool [N, C] of both sets."""
        true = []
        for example in examples:
            self._known_label(example)
            true.append(classes_of(example))
        labels = list(dict.fromkeys([*self.labels, *chain.from_iterable(true)]))
        predicted = [prediction.labels for prediction in predictions]
        return labels, _has_labels(labels, true), _has_labels(labels, predicted)

    def calibration(
        self, predictions: Sequence[LabelSetPrediction], examples: Sequence[TextExample]
    ) -> list[Bin]:
        """Return the reliability table of the probabilities of all classes together."""
        probabilities = np.array([prediction.probabilities for prediction in predictions])
        return metrics.reliability(probabilities.ravel(), self.targets(examples).ravel())

    def prediction_tables(
        self, predictions: Sequence[Any], examples: Sequence[TextExample]
    ) -> dict[str, Any]:
        """Return `class_scores` and, if the probabilities are finite, `calibration`."""
        labels, true, predicted = self._compared(predictions, examples)
        tables = {"class_scores": class_table(labels, count_decisions(true, predicted))}
        if are_finite(prediction.probabilities for prediction in predictions):
            tables["calibration"] = calibration_table(self.calibration(predictions, examples))
        return tables

    def mistake_severity(
        self, prediction: LabelSetPrediction, example: TextExample
    ) -> float | None:
        """Return 1 - (probability of the most wrong decision); None if all classes are right."""
        true = set(classes_of(example))
        if set(prediction.labels) == true:
            return None
        errors = []
        for label, probability in zip(self.labels, prediction.probabilities, strict=True):
            errors.append(1 - probability if label in true else probability)
        # A class without an output has no probability.
        return max(errors) if true <= set(self.labels) else 1.0


def _has_labels(labels: Sequence[str], sets: Sequence[Sequence[str]]) -> np.ndarray:
    """Return bool [sets, labels]: whether each set has each label."""
    numbers = {label: number for number, label in enumerate(labels)}
    has_label = np.zeros((len(sets), len(labels)), bool)
    for row, names in enumerate(sets):
        has_label[row, [numbers[name] for name in names]] = True
    return has_label
