"""How much each weight costs when it alone is quantized, measured on the model's output."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bertjax.compression.figures import Predict
from bertjax.progress import Progress, silent

MOST_ROWS = 32
"""Rows that errors are measured on."""


def some_rows(batches: Iterable[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Return the first `MOST_ROWS` rows of batches."""
    rows: list[dict[str, np.ndarray]] = []
    count = 0
    for batch in batches:
        part = {name: values[: MOST_ROWS - count] for name, values in batch.items()}
        rows.append(part)
        count += len(part["input_ids"])
        if count >= MOST_ROWS:
            break
    return rows


def relative_error(
    exact: Sequence[np.ndarray],
    rows: Sequence[Mapping[str, np.ndarray]],
    predict: Predict,
) -> float:
    """Return the norm of the difference of two models' outputs, over that of the exact one."""
    difference, norm = 0.0, 0.0
    for output, inputs in zip(exact, rows, strict=True):
        quantized = predict(inputs)
        if output.ndim == 3:
            # Outputs at padding are read by nobody.
            real = inputs["input_mask"].astype(bool)
            output, quantized = output[real], quantized[real]
        difference += float(np.sum(np.square(quantized - output, dtype=np.float64)))
        norm += float(np.sum(np.square(output, dtype=np.float64)))
    return float(np.sqrt(difference / max(norm, np.finfo(np.float64).tiny)))


def errors_of_weights(
    weights: Sequence[str],
    quantized_error: Callable[[Path, str], float],
    scratch: Path,
    progress: Progress = silent,
) -> dict[str, float]:
    """Return the relative error of the output for each weight that alone is quantized.

    `quantized_error` writes such a model into an empty folder and returns its error.
    """
    errors = {}
    for number, weight in enumerate(weights):
        folder = scratch / "one"
        folder.mkdir()
        errors[weight] = quantized_error(folder, weight)
        shutil.rmtree(folder)
        progress("errors of single weights", number + 1, len(weights))
    return errors


def keep_counts(most: int) -> list[int]:
    """Return the numbers of weights that are tried in float, one after another: 1, 2, 4, …"""
    counts = []
    count = 1
    while count < most:
        counts.append(count)
        count *= 2
    return [*counts, most] if most else []
