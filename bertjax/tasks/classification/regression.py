"""Regression: prediction of a number for each text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.errors import check
from bertjax.number_text import number_text
from bertjax.tasks import metrics
from bertjax.tasks.classification.predictions import NumberPrediction
from bertjax.tasks.classification.task import TextTask
from bertjax.tasks.examples import TextExample
from bertjax.tasks.metric_table import Metric, Scale
from bertjax.tasks.task import EncodedExamples
from bertjax.types import Batch

CONSTANT = 0.01
"""Share of the true numbers' deviation below which predicted numbers may count as the same."""
ROUNDING = 1e-6
"""Share of the largest predicted number by which equal ones may differ: float32 has 7 digits."""


@dataclass(frozen=True)
class Regression(TextTask):
    """A task without labels, which predicts a number, the only output of the head."""

    label_type = "number"
    choosable = (
        Metric("pearson", Scale.CORRELATION),
        Metric("spearman", Scale.CORRELATION),
        Metric("mse", Scale.ERROR),
        Metric("mae", Scale.ERROR),
    )
    default_metrics = ("pearson", "spearman")
    problem_type = "regression"

    def _check_labels(self) -> None:
        self._check_label_count(not self.labels, "0")

    def sums(self, logits: Array, batch: Batch) -> dict[str, Array]:
        """Return `loss`, the squared error, and `count`.

        `batch["labels"]` is float32 [B]. An item of weight 0 changes neither the sums nor the
        gradients, even if its label or logits are NaN.
        """
        weights = self._item_weights(batch)
        is_real = batch["item_weights"] > 0
        # Before the square, as in `SingleLabel.sums`: a weight of 0 does not remove NaN.
        predicted = jnp.where(is_real, logits[:, 0].astype(jnp.float32), 0)
        targets = jnp.where(is_real, batch["labels"].astype(jnp.float32), 0)
        return {
            "loss": jnp.sum(weights * (predicted - targets) ** 2),
            "count": jnp.sum(weights),
        }

    def soft_losses(self, logits: Array, taught: Array, batch: Batch, temperature: float) -> Array:
        """Return the squared difference from the teacher's number for each item, [B]."""
        is_real = batch["item_weights"] > 0
        difference = (logits - jax.lax.stop_gradient(taught))[:, 0].astype(jnp.float32)
        return jnp.where(is_real, difference, 0) ** 2

    def outputs(self, logits: Array) -> Array:
        """Return the predicted number of each item, float32 [B, 1]."""
        return logits.astype(jnp.float32)

    def targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        """Return the labels, float32 [examples]; raises `UserError` as `TextTask.targets` does."""
        numbers = np.zeros(len(examples), np.float32)
        for index, example in enumerate(examples):
            label = self._known_label(example)
            check(
                isinstance(label, int | float),
                where=self._place(example),
                found=f"the label {label!r}",
                expected="a number",
            )
            numbers[index] = label
        return numbers

    def predict(
        self,
        outputs: Sequence[np.ndarray],
        encoded: EncodedExamples,
        examples: Sequence[TextExample],
    ) -> list[NumberPrediction]:
        """Return the predicted number of each example."""
        return [NumberPrediction(float(output[0])) for output in outputs]

    def figures(
        self, predictions: Sequence[NumberPrediction], examples: Sequence[TextExample]
    ) -> dict[str, float]:
        """Return the task's metrics by name: correlations in -1..1, errors from 0."""
        true = self.targets(examples)
        predicted = np.array([prediction.value for prediction in predictions])
        return {name: FIGURES[name](true, predicted) for name in self.figure_names}

    def majority_baseline(self, examples: Sequence[TextExample]) -> float | None:
        """Return the score of the best constant prediction: the mean or the median.

        None if all examples have the same number: no model exceeds a constant then.
        """
        true = self.targets(examples)
        if (true == true[0]).all():
            return None
        scores = []
        for constant in (float(np.mean(true)), float(np.median(true))):
            figures = self.figures([NumberPrediction(constant)] * len(examples), examples)
            scores.append(self.metric_scale.score(figures[self.metric]))
        return max(scores)

    def constant_answer(
        self, predictions: Sequence[Any], examples: Sequence[TextExample]
    ) -> str | None:
        """Return the mean prediction if nearly the same is predicted for different numbers.

        Predictions that differ little are not the same if their order follows that of the true
        numbers more than chance would make it.
        """
        true = self.targets(examples)
        predicted = np.array([prediction.value for prediction in predictions])
        is_narrow = np.std(predicted) < CONSTANT * np.std(true)
        if not is_narrow:
            return None
        is_equal = np.ptp(predicted) <= ROUNDING * np.max(np.abs(predicted))
        # The correlation of numbers without relation deviates by 1 / sqrt(N - 1) from 0.
        chance = 2 / np.sqrt(len(true) - 1)
        correlation = max(metrics.pearson(true, predicted), metrics.spearman(true, predicted))
        if correlation > chance and not is_equal:
            return None
        return f"about {number_text(np.mean(predicted), '.3f')}"

    def mistake_severity(self, prediction: NumberPrediction, example: TextExample) -> float | None:
        """Return the distance from the true number; None if the two are equal."""
        assert isinstance(example.label, int | float)
        if prediction.value == example.label:
            return None
        return abs(prediction.value - example.label)


FIGURES = {
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
    "mse": metrics.mean_squared_error,
    "mae": metrics.mean_absolute_error,
}
