"""Latency of models in their runtimes, measured by turns: each in its process, one at a time."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertjax.compression.runtimes.process import RuntimeModel

BATCHES = (1, 32)
LENGTHS = (32, 128, 512)
CALLS_A_TURN = 5
"""Calls of one model before the next one's turn: with each call its weights would be cold."""
FEWEST_CALLS, MOST_CALLS = 5, 200


@dataclass(frozen=True)
class Latency:
    """The time that one call takes, for rows of one shape."""

    batch_size: int
    length: int
    median_ms: float
    p99_ms: float
    """The 99th percentile; of fewer than 100 calls it is close to the slowest one."""
    calls: int


@dataclass(frozen=True)
class Timed:
    """A model whose latency is measured, and the outputs that it computes."""

    model: RuntimeModel
    outputs: Sequence[str]


def cells(max_length: int) -> list[tuple[int, int]]:
    """Return the pairs of batch size and length that a model of these positions can compute."""
    lengths = [length for length in LENGTHS if length <= max_length] or [max_length]
    return [(batch_size, length) for batch_size in BATCHES for length in lengths]


def measure_latency(
    models: Mapping[str, Timed], vocab_size: int, max_length: int, *, seconds: float = 2.0
) -> dict[str, tuple[Latency, ...]]:
    """Return the latencies of each model by its name, in the order of `cells`.

    See `latency_of_shape`.
    """
    measured: dict[str, list[Latency]] = {name: [] for name in models}
    for batch_size, length in cells(max_length):
        shape = random_rows(batch_size, length, vocab_size)
        for name, latency in latency_of_shape(models, shape, seconds=seconds).items():
            measured[name].append(latency)
    return {name: tuple(latencies) for name, latencies in measured.items()}


def latency_of_shape(
    models: Mapping[str, Timed], inputs: Mapping[str, np.ndarray], *, seconds: float
) -> dict[str, Latency]:
    """Return the latency of each model for these rows.

    The models take turns of `CALLS_A_TURN` calls, so a load that comes and goes on the machine
    meets all of them. Each has about `seconds`, but `FEWEST_CALLS` to `MOST_CALLS` calls.
    """
    batch_size, length = inputs["input_ids"].shape
    by_model = {}
    for name, taken in _by_turns(models, inputs, seconds).items():
        median, p99 = np.percentile(1000 * np.array(taken), [50, 99])
        by_model[name] = Latency(batch_size, length, float(median), float(p99), len(taken))
    return by_model


def _by_turns(
    models: Mapping[str, Timed], inputs: Mapping[str, np.ndarray], seconds: float
) -> dict[str, list[float]]:
    """Return the seconds of each call, by the model."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    # The first call reserves memory, or compiles.
    for timed in models.values():
        timed.model.seconds(inputs, timed.outputs, 1)
    end = time.perf_counter() + seconds * len(models)
    fewest = 0
    while fewest < MOST_CALLS and (fewest < FEWEST_CALLS or time.perf_counter() < end):
        for name, timed in models.items():
            taken[name] += timed.model.seconds(inputs, timed.outputs, CALLS_A_TURN).tolist()
        fewest += CALLS_A_TURN
    return taken


def random_rows(batch_size: int, length: int, vocab_size: int) -> dict[str, np.ndarray]:
    """Return rows of random ids without padding, the same ones for each shape."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, vocab_size, (batch_size, length), dtype=np.int32)
    return {
        "input_ids": ids,
        "input_mask": np.ones_like(ids),
        "segment_ids": np.zeros_like(ids),
    }
