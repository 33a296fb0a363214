"""A class, several classes or a number for a sentence or a pair (section 4.1 of arXiv 1810.04805)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.data.ragged import ranges
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check
from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.model.linear_head import init_linear
from bertjax.tasks import linear_head as heads
from bertjax.tasks.examples import TextExample
from bertjax.tasks.metrics import (
    Bin,
    accuracy,
    confusion_matrix,
    f1,
    f1_macro,
    f1_micro,
    matthews_correlation,
    pearson,
    reliability,
    spearman,
)
from bertjax.tasks.task import Linear, Rows
from bertjax.types import Batch

LabelType = Literal["class", "classes", "number"]
DEFAULT_METRICS: dict[str, tuple[str, ...]] = {
    "class": ("accuracy",),
    "classes": ("f1_micro", "f1_macro", "exact_match"),
    "number": ("pearson", "spearman"),
}
METRICS = {
    "class": ("accuracy", "f1", "f1_macro", "matthews_correlation"),
    "classes": ("f1_micro", "f1_macro", "exact_match"),
    "number": ("pearson", "spearman"),
}
THRESHOLD = 0.5  # probability from which a class of several is said to be there

log = logging.getLogger("bertjax")


@dataclass(frozen=True)
class TextPrediction:
    """What is said of one example."""

    label: str | tuple[str, ...] | None
    """The class, or the classes; None where a number is predicted."""
    probabilities: tuple[float, ...] = ()
    """Of the task's labels, in their order; of one class they add up to 1."""
    value: float | None = None
    """The number."""


@dataclass(frozen=True)
class Classification(Linear):
    """The task of one linear layer on the pooled vector; implements `bertjax.tasks.task.Task`.

    Raises `UserError` for a metric that its labels do not have, fewer labels than there must be, or
    options out of range.
    """

    name: str
    labels: tuple[str, ...] = ()
    """The classes in the order of the head's outputs; empty where a number is predicted."""
    label_type: LabelType = "class"
    metrics: tuple[str, ...] = ()
    """Figures, the first of which chooses the best checkpoint; empty: the usual ones
    (`DEFAULT_METRICS`).
    """
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    """How much each class weighs in the loss; empty: 1 each."""

    def __post_init__(self) -> None:
        where, found = f"task {self.name}", len(self.labels)
        check(
            self.label_type in get_args(LabelType),
            where=f"{where}: label_type",
            found=self.label_type,
            expected="a kind of label",
        )
        least = {"class": 2, "classes": 1, "number": 0}[self.label_type]
        enough = found >= least and not (found and self.label_type == "number")
        check(
            enough,
            where=f"{where}: labels",
            found=", ".join(self.labels) or "none",
            expected=f"{least}{' or more' if least else ''}",
        )
        check(
            len(set(self.labels)) == found,
            where=f"{where}: labels",
            found=", ".join(self.labels),
            expected="each once",
        )
        known = METRICS[self.label_type]
        for metric in self.metrics:
            good = metric in known and (metric != "f1" or found == 2)
            check(
                good,
                where=f"{where}: metrics",
                found=metric,
                expected=f"one of {', '.join(known)} (f1 for two labels)",
            )
        smoothing, weights = self.label_smoothing, self.class_weights
        check(
            0 <= smoothing < 1,
            where=f"{where}: label_smoothing",
            found=smoothing,
            expected="a number from 0 to below 1",
        )
        check(
            smoothing == 0 or found > 0,
            where=f"{where}: label_smoothing",
            found=smoothing,
            expected="0 where a number is predicted",
        )
        good = len(weights) in (0, found) and all(0 < weight < float("inf") for weight in weights)
        check(
            good,
            where=f"{where}: class_weights",
            found=weights,
            expected=f"{found} numbers above 0, one a label",
        )

    @property
    def metric(self) -> str:
        return self.figure_names[0]

    @property
    def figure_names(self) -> tuple[str, ...]:
        names = self.metrics or DEFAULT_METRICS[self.label_type]
        return names if self.label_type != "class" or "accuracy" in names else (*names, "accuracy")

    @property
    def per_token(self) -> bool:
        return False

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        return init_linear(config, key, max(1, len(self.labels)))

    def scores(
        self,
        config: ModelConfig,
        params: Params,
        batch: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """[B, C] float32: logits of the labels; [B, 1], the number."""
        return heads.pooled_scores(
            config, params, heads.head_of(params, self.name), batch, key=key, layout=layout
        )

    def count(self, batch: Batch) -> Array:
        """The sum of the items' weights, each times its class's weight where one class is
        predicted.
        """
        return jnp.sum(self._weights(batch))

    def sums(self, scores: Array, batch: Batch) -> dict[str, Array]:
        """`loss`, `count` and, where one class is predicted, `accuracy`: the right ones, each with
        its weight.

        Class: softmax cross-entropy in nats. An item of class y has the loss (1 - e) w_y nll_y +
        e/C sum_c w_c nll_c and the count w_y, with `label_smoothing` e (arXiv 1512.00567) and
        `class_weights` w: what PyTorch's CrossEntropyLoss(weight, label_smoothing=e) takes the mean
        of. So the divisor is the weight of the true classes, in the smoothed part too. Classes: the
        mean over classes of sigmoid cross-entropy in nats, weighted by w, the targets y(1 - e) +
        e/2. Number: the squared error.

        An item of weight 0 adds exactly nothing, and no gradient, whatever its label and scores.
        """
        weights = self._weights(batch)
        real_Bx1 = (batch["item_weights"] > 0)[:, None]
        scores = jnp.where(real_Bx1, scores.astype(jnp.float32), 0)
        if self.label_type == "number":
            targets = jnp.where(real_Bx1[:, 0], batch["labels"].astype(jnp.float32), 0)
            return {
                "loss": jnp.sum(weights * (scores[:, 0] - targets) ** 2),
                "count": jnp.sum(weights),
            }
        class_weights_1xC = jnp.asarray(
            self.class_weights or (1.0,) * len(self.labels), jnp.float32
        )[None, :]
        e = self.label_smoothing
        if self.label_type == "classes":
            targets = jnp.where(real_Bx1, batch["labels"].astype(jnp.float32), 0) * (1 - e) + e / 2
            # -y log s(x) - (1 - y) log s(-x), where log s(-x) = log s(x) - x
            losses = (1 - targets) * scores - jax.nn.log_sigmoid(scores)
            mean = jnp.sum(losses * class_weights_1xC, axis=1) / jnp.sum(class_weights_1xC)
            return {"loss": jnp.sum(weights * mean), "count": jnp.sum(weights)}
        labels = self._class_ids(batch)
        nll = -jax.nn.log_softmax(scores)
        true = jax.nn.one_hot(labels, len(self.labels), dtype=jnp.float32)
        each = jnp.sum(((1 - e) * true + e / len(self.labels)) * class_weights_1xC * nll, axis=1)
        right = (jnp.argmax(scores, axis=1) == labels).astype(jnp.float32)
        return {
            "loss": jnp.sum(batch["item_weights"].astype(jnp.float32) * each),
            "count": jnp.sum(weights),
            "accuracy": jnp.sum(weights * right),
        }

    def outputs(self, scores: Array) -> Array:
        """Probabilities of the labels [B, C], or the number [B, 1]; float32."""
        if self.label_type == "number":
            return scores.astype(jnp.float32)
        function = jax.nn.softmax if self.label_type == "class" else jax.nn.sigmoid
        return function(scores.astype(jnp.float32))

    def rows(
        self,
        examples: Sequence[TextExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> Rows:
        """[CLS] a [SEP], or [CLS] a [SEP] b [SEP] where there is a pair, a row an example.

        The log says how many had to be cut. With `targets` there is `labels`: int32 [items],
        float32 [items, C] of 0 and 1 for several classes, or float32 [items]. Raises `UserError`
        for an example without a label, or with one that is not among the task's.
        """
        found = {"labels": self.targets(examples)} if targets else {}
        ids, offsets, second, cut = encoded_pairs(tokenizer, examples, max_seq_length)
        if cut:
            log.info(
                "%s: texts cut to %d ids: %d of %d", self.name, max_seq_length, cut, len(examples)
            )
        return Rows(ids, offsets, second, np.arange(len(examples)), found)

    def targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        """The labels as `rows` has them."""
        places = {label: i for i, label in enumerate(self.labels)}
        found = np.zeros(
            (len(examples), len(self.labels)) if self.label_type == "classes" else len(examples)
        )
        for i, example in enumerate(examples):
            label, where = example.label, f"task {self.name}, example {example.id}"
            check(label is not None, where=where, found="no label", expected="one")
            if self.label_type == "number":
                check(
                    isinstance(label, int | float),
                    where=where,
                    found=f"the label {label!r}",
                    expected="a number",
                )
                found[i] = label
                continue
            several = self.label_type == "classes"
            for one in label if several and isinstance(label, tuple) else (label,):
                if one not in places:
                    known = ", ".join(self.labels[:20]) + (", ..." if len(self.labels) > 20 else "")
                    raise UserError(
                        f"{where}: found the label {one!r}, expected one of those of training: {known}"
                    )
                if several:
                    found[i, places[one]] = 1
                else:
                    found[i] = places[one]
        return found.astype(np.int32 if self.label_type == "class" else np.float32)

    def predict(
        self, outputs: Sequence[np.ndarray], rows: Rows, examples: Sequence[TextExample]
    ) -> list[TextPrediction]:
        """The likeliest class; the classes of probability `THRESHOLD` or more; the number."""
        if self.label_type == "number":
            return [TextPrediction(None, value=float(output[0])) for output in outputs]
        lists = [tuple(np.asarray(output, np.float64).tolist()) for output in outputs]
        if self.label_type == "class":
            return [TextPrediction(self.labels[p.index(max(p))], p) for p in lists]
        return [
            TextPrediction(
                tuple(label for label, x in zip(self.labels, p, strict=True) if x >= THRESHOLD), p
            )
            for p in lists
        ]

    def figures(
        self, predictions: Sequence[TextPrediction], examples: Sequence[TextExample]
    ) -> dict[str, float]:
        """The task's metrics by name, and `accuracy` where one class is predicted; `f1` is that of
        the second label.

        `exact_match` is the share of examples with all classes right.
        """
        true: Any = self.targets(examples)
        if self.label_type == "number":
            predicted: Any = np.array([prediction.value for prediction in predictions])
        elif self.label_type == "class":
            predicted = self._predicted_ids(predictions)
        else:
            said = [tuple(label for label in prediction.label or ()) for prediction in predictions]
            predicted = np.array(
                [[label in labels for label in self.labels] for labels in said], bool
            )
            true = true.astype(bool)
        return {name: self._figure(name, true, predicted) for name in self.figure_names}

    def confusion(
        self, predictions: Sequence[TextPrediction], examples: Sequence[TextExample]
    ) -> np.ndarray:
        """int64 [C, C]: examples of the class of each row that were taken for the class of each
        column.
        """
        assert self.label_type == "class"
        return confusion_matrix(
            self.targets(examples), self._predicted_ids(predictions), len(self.labels)
        )

    def calibration(
        self, predictions: Sequence[TextPrediction], examples: Sequence[TextExample]
    ) -> list[Bin]:
        """The reliability table of the predicted class's probability; of several classes, of every
        class's.
        """
        true = self.targets(examples)
        given = np.array([prediction.probabilities for prediction in predictions]).reshape(
            -1, len(self.labels)
        )
        if self.label_type == "class":
            return reliability(given.max(1), self._predicted_ids(predictions) == true)
        assert self.label_type == "classes"
        return reliability(given.ravel(), true.ravel())

    def _weights(self, batch: Batch) -> Array:
        """[B] float32, what each item adds to the count."""
        weights = batch["item_weights"].astype(jnp.float32)
        if self.label_type != "class" or not self.class_weights:
            return weights
        return weights * jnp.asarray(self.class_weights, jnp.float32)[self._class_ids(batch)]

    def _class_ids(self, batch: Batch) -> Array:
        return jnp.where(batch["item_weights"] > 0, batch["labels"], 0)

    def _predicted_ids(self, predictions: Sequence[TextPrediction]) -> np.ndarray:
        places = {label: i for i, label in enumerate(self.labels)}
        return np.array([places[str(prediction.label)] for prediction in predictions], np.int64)

    def _figure(self, name: str, true: np.ndarray, predicted: np.ndarray) -> float:
        classes = np.arange(len(self.labels))[None, :]
        if name == "matthews_correlation":
            return matthews_correlation(true, predicted, len(self.labels))
        if name == "f1_macro" and self.label_type == "class":
            return f1_macro(true[:, None] == classes, predicted[:, None] == classes)
        return FIGURES[name](true, predicted)


FIGURES = {
    "accuracy": accuracy,
    "exact_match": accuracy,
    "f1": f1,
    "f1_micro": f1_micro,
    "f1_macro": f1_macro,
    "pearson": pearson,
    "spearman": spearman,
}


def encoded_pairs(
    tokenizer: Tokenizer, examples: Sequence[TextExample], max_seq_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(ids, offsets, second, cut) of the examples' rows, as in `Rows`; `cut` of them were too long.

    A pair that is too long loses pieces one at a time from the end of the longer text, of the
    second where they are alike (as BERT's own run_classifier.py has it; in closed form here).
    """
    paired = np.array([example.pair is not None for example in examples], bool)
    first_ids, first = tokenizer.encode_batch([example.text for example in examples])
    other_ids, other = tokenizer.encode_batch([example.pair or "" for example in examples])
    room = max_seq_length - 2 - paired
    check(
        (room > 0).all(),
        where="max_seq_length",
        found=max_seq_length,
        expected="room for the special tokens",
    )
    a, b = np.diff(first), np.diff(other)
    kept_a = np.minimum(a, np.maximum(room - b, np.where(paired, -(-room // 2), room)))
    kept_b = np.minimum(b, room - kept_a)
    offsets = np.concatenate([[0], np.cumsum(2 + kept_a + paired * (kept_b + 1))]).astype(np.int64)
    begins, second = offsets[:-1], (kept_a + 2).astype(np.int32)
    ids = np.full(offsets[-1], tokenizer.sep_id, np.int32)
    ids[begins] = tokenizer.cls_id
    ids[ranges(begins + 1, begins + 1 + kept_a)] = first_ids[
        ranges(first[:-1], first[:-1] + kept_a)
    ]
    ids[ranges(begins + second, begins + second + kept_b)] = other_ids[
        ranges(other[:-1], other[:-1] + kept_b)
    ]
    return ids, offsets, second, int(((kept_a < a) | (kept_b < b)).sum())
