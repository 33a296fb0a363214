"""The figure of a model: one number on held-out data, measured in the same way in any runtime.

A fine-tuned model has the metric of its task on the validation split, a pretrained one the loss of
masked words on its prepared held-out records, or, with rated pairs of sentences, the Spearman
correlation of their similarities.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import jax
import numpy as np
from etils import epath
from scipy.special import logsumexp
from scipy.stats import spearmanr

from bertjax.compression.rated_pairs import RatedPair, text_rows
from bertjax.config import ModelConfig
from bertjax.errors import check, mismatch
from bertjax.finetuning.batches import BatchShape, eval_batches, item_lengths
from bertjax.finetuning.evaluate import Split
from bertjax.interop.programs.serving import INPUTS, served_model, serving_function
from bertjax.model.functional import Params
from bertjax.tasks.metric_table import Scale
from bertjax.tasks.task import EncodedExamples, Task
from bertjax.tasks.task_head import TaskHead
from bertjax.types import Batch

Predict = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Function from int32 [b, l] arrays named `INPUTS` to one output of the model, float32."""

Pooling = Literal["mean", "cls"]

MAX_VALUES = 1 << 25
"""Most values of one prediction, 128 MiB: rows of all logits of a vocabulary are large."""


@dataclass(frozen=True)
class Figure:
    """One number that says how good a model is."""

    name: str
    """The metric, such as `accuracy`."""
    value: float
    higher_is_better: bool
    measured_on: str
    """The data in words, such as `sst2: validation`."""
    count: int
    """Number of examples, masked words or pairs that were measured."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as JSON."""
        return asdict(self)


class Measure(Protocol):
    """Held-out data, ready to measure any model that has `output`."""

    @property
    def output(self) -> str:
        """The model's output that is needed: `logits`, `mlm_logits` or `hidden`."""
        ...

    def figure(self, predict: Predict) -> Figure:
        """Return the figure of the model that `predict` computes."""
        ...

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows that are measured, as inputs of `predict`."""
        ...


def program_batches(
    encoded: EncodedExamples, shape: BatchShape
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield all examples of a task as inputs of a program, with the numbers of the items."""
    for items, batch in eval_batches(encoded, shape, row_indices=np.arange(shape.batch_size)):
        real = items >= 0
        # The choices of an item are rows of a program.
        yield (
            items[real],
            {name: batch[name][real].reshape(-1, batch[name].shape[-1]) for name in INPUTS},
        )


@dataclass(frozen=True)
class TaskMeasure:
    """The metric that chooses a task's checkpoint, on its main validation split."""

    task: Task
    split: Split
    split_name: str
    shape: BatchShape

    @property
    def output(self) -> str:
        """The logits of the task's head."""
        return "logits"

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows of the split."""
        for _, inputs in program_batches(self.split.encoded, self.shape):
            yield inputs

    def figure(self, predict: Predict) -> Figure:
        """Return the task's metric."""
        task, encoded = self.task, self.split.encoded
        lengths = item_lengths(encoded, self.shape.max_seq_length)
        outputs: list[Any] = [None] * encoded.items
        for items, inputs in program_batches(encoded, self.shape):
            logits = predict(inputs)
            if encoded.choices > 1:
                logits = logits.reshape(len(items), encoded.choices)
            values = np.asarray(task.outputs(logits))  # type: ignore[arg-type]
            for item, output in zip(items, values, strict=True):
                outputs[item] = output[: lengths[item]] if task.per_token else output
        predictions = task.predict(outputs, encoded, self.split.examples)
        value = float(task.figures(predictions, self.split.examples)[task.metric])
        return Figure(
            task.metric,
            value,
            task.metric_scale is not Scale.ERROR,
            f"{task.name}: {self.split_name}",
            len(self.split.examples),
        )


@dataclass(frozen=True)
class MaskedWordMeasure:
    """The mean loss of masked words, in nats, on held-out records."""

    open_batches: Callable[[], Iterator[Batch]]
    """Function that yields batches with the features of pretraining."""
    vocab_size: int
    source: str
    """The data in words."""

    @property
    def output(self) -> str:
        """The logits of the vocabulary."""
        return "mlm_logits"

    def _rows(self) -> Iterator[Batch]:
        for batch in self.open_batches():
            check(
                "pack_ids" not in batch,
                where=self.source,
                found="packed rows",
                expected="one input a row, as exported models read them (or --sts FILE)",
            )
            length = batch["input_ids"].shape[1]
            rows = max(1, MAX_VALUES // (length * self.vocab_size))
            for begin in range(0, len(batch["input_ids"]), rows):
                part = {name: values[begin : begin + rows] for name, values in batch.items()}
                # Rows of zeros fill up the last batch.
                real = np.flatnonzero(part["input_mask"].any(axis=1))
                if len(real):
                    yield {name: values[real] for name, values in part.items()}

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows of the records."""
        for batch in self._rows():
            yield {name: batch[name].astype(np.int32) for name in INPUTS}

    def figure(self, predict: Predict) -> Figure:
        """Return the mean loss of a masked word."""
        total, weight = 0.0, 0.0
        for batch in self._rows():
            logits = predict({name: batch[name].astype(np.int32) for name in INPUTS})
            positions = batch["masked_lm_positions"][..., None]
            chosen = np.take_along_axis(logits, positions, axis=1).astype(np.float64)
            true = np.take_along_axis(chosen, batch["masked_lm_ids"][..., None], axis=2)[..., 0]
            losses = logsumexp(chosen, axis=-1) - true
            total += float(np.sum(losses * batch["masked_lm_weights"]))
            weight += float(np.sum(batch["masked_lm_weights"]))
        check(weight > 0, where=self.source, found="no masked word", expected="one or more")
        return Figure("mlm_loss", total / weight, False, self.source, round(weight))


@dataclass(frozen=True)
class PairMeasure:
    """The Spearman correlation between ratings of pairs and the cosines of sentence vectors."""

    pairs: tuple[RatedPair, ...]
    rows: tuple[np.ndarray, ...]
    """The ids of each text, by the order of `texts`."""
    texts: Mapping[str, int]
    pad_id: int
    source: str
    pooling: Pooling = "mean"
    batch_size: int = 32

    @property
    def output(self) -> str:
        """The hidden states of all tokens."""
        return "hidden"

    def _batches(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        # Of similar lengths, so that little is padded.
        order = np.argsort([len(row) for row in self.rows], kind="stable")
        for begin in range(0, len(order), self.batch_size):
            chosen = order[begin : begin + self.batch_size]
            yield chosen, padded_rows([self.rows[i] for i in chosen], self.pad_id)

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows of all texts."""
        for _, inputs in self._batches():
            yield inputs

    def figure(self, predict: Predict) -> Figure:
        """Return the correlation."""
        vectors: dict[int, np.ndarray] = {}
        for chosen, inputs in self._batches():
            pooled = pooled_vectors(predict(inputs), inputs["input_mask"], self.pooling)
            vectors.update(zip(chosen.tolist(), pooled, strict=True))
        table = np.stack([vectors[i] for i in range(len(self.rows))])
        return self.figure_of_vectors(table)

    def figure_of_vectors(self, vectors: np.ndarray) -> Figure:
        """Return the correlation for the vector of each text, [texts, W], in any way made."""
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        first = unit[[self.texts[pair.first] for pair in self.pairs]]
        second = unit[[self.texts[pair.second] for pair in self.pairs]]
        cosines = np.sum(first * second, axis=1)
        # Where all cosines are equal, scipy warns and has no correlation: it is worth nothing.
        value = 0.0
        if np.isfinite(cosines).all() and np.ptp(cosines) > 0:
            value = float(spearmanr(cosines, [pair.score for pair in self.pairs]).statistic)
        return Figure("spearman", value, True, self.source, len(self.pairs))


def pair_measure(
    path: epath.Path,
    pairs: tuple[RatedPair, ...],
    tokenizer: Any,
    max_length: int,
    pooling: Pooling = "mean",
) -> PairMeasure:
    """Return the measure for rated pairs, whose texts are cut to `max_length` ids."""
    texts: dict[str, int] = {}
    for pair in pairs:
        texts.setdefault(pair.first, len(texts))
        texts.setdefault(pair.second, len(texts))
    rows = text_rows(tokenizer, list(texts), max_length)
    source = f"{path.name}: {len(pairs):,} rated pairs"
    return PairMeasure(pairs, tuple(rows), texts, tokenizer.pad_id, source, pooling)


def padded_rows(rows: list[np.ndarray], pad_id: int) -> dict[str, np.ndarray]:
    """Return rows of ids as inputs of a program, padded to the longest of them."""
    length = max(len(row) for row in rows)
    ids = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros((len(rows), length), np.int32)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "input_mask": mask, "segment_ids": np.zeros_like(mask)}


def pooled_vectors(hidden: np.ndarray, mask: np.ndarray, pooling: Pooling) -> np.ndarray:
    """Return one vector a row, [b, D]: the mean over its tokens, or the vector of the first."""
    if pooling == "cls":
        return hidden[:, 0]
    real = mask[:, :, None].astype(np.float32)
    return np.sum(hidden * real, axis=1) / np.sum(real, axis=1)


def model_predict(
    config: ModelConfig, params: Params, output: str, head: TaskHead | None = None
) -> Predict:
    """Return the function that computes `output` of a model in JAX, on this process's devices.

    The parameters of a `head` are at `params["task_head"]`, as `load_with_head` returns them.
    """
    served = served_model(config, params, [output], head)
    serve = jax.jit(serving_function(served))
    arrays = jax.device_put(dict(served.params))

    def predict(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(serve(arrays, *(inputs[name] for name in INPUTS))[output])

    return predict


def check_one_scale(before: Figure, after: Figure) -> None:
    """Raise `UserError` unless two figures are of the same metric and data."""
    for name in ("name", "measured_on", "count", "higher_is_better"):
        ours, theirs = getattr(after, name), getattr(before, name)
        if ours != theirs:
            raise mismatch(where=f"figure: {name}", found=ours, expected=f"{theirs}, as before")
