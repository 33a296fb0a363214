"""Figures of forms with intervals over seeds and examples, and which of them are told apart."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 0.05
"""1 - LEVEL is the share of the resamples in an interval; 2.5 % lie below it."""


class Interval(NamedTuple):
    """A figure, and the ends of its interval of 95 %."""

    value: float
    low: float
    high: float


Figure = Callable[[np.ndarray], np.ndarray]
"""Function from sums over examples, float64 [R, K], to a figure of each; float64 [R]."""


def bits_per_byte(sums: np.ndarray) -> np.ndarray:
    """Return bits over bytes, of sums of the two; [R, 2]."""
    return sums[:, 0] / sums[:, 1]


def accuracy(sums: np.ndarray) -> np.ndarray:
    """Return the share that is right, of `outcomes`' sums; [R, 4]."""
    return (sums[:, 0] + sums[:, 3]) / sums.sum(1)


def f1(sums: np.ndarray) -> np.ndarray:
    """Return F1 of the second class, of `outcomes`' sums; 0 if it is nowhere."""
    positive = 2 * sums[:, 0] + sums[:, 1] + sums[:, 2]
    return 2 * sums[:, 0] / np.maximum(positive, 1)


def matthews(sums: np.ndarray) -> np.ndarray:
    """Return Matthews' correlation, of `outcomes`' sums; 0 if one class alone is there."""
    tp, fp, fn, tn = sums.T
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return np.where(product > 0, (tp * tn - fp * fn) / np.sqrt(np.maximum(product, 1)), 0.0)


def outcomes(labels: Sequence[str], predictions: Sequence[str], positive: str) -> np.ndarray:
    """Return for each example: true and false positive, false and true negative; [N, 4].

    Raises `ValueError` where no label is `positive`.
    """
    if positive not in labels:
        raise ValueError(f"labels {sorted(set(labels))}: found no {positive!r}, expected some")
    is_true = np.array([label == positive for label in labels])
    is_said = np.array([prediction == positive for prediction in predictions])
    columns = [is_true & is_said, ~is_true & is_said, is_true & ~is_said, ~is_true & ~is_said]
    return np.stack(columns, axis=1).astype(np.float64)


class Resampling:
    """Resamples of examples, the same for all forms, and of the seeds of each form.

    Both are drawn with replacement (the bootstrap; Efron 1979). A form's figure is the mean over
    its seeds. Examples are those of all forms, so their differences are of the same examples.
    """

    def __init__(self, figure: Figure, forms: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Take for each form an array [N, K] of each seed: K numbers of N examples."""
        rng = np.random.default_rng(0)
        examples = {len(own) for seeds in forms.values() for own in seeds}
        if len(examples) != 1:
            raise ValueError(f"forms have {sorted(examples)} examples, expected one number")
        (count,) = examples
        weights = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)
        self._values: dict[str, float] = {}
        self._samples: dict[str, np.ndarray] = {}
        for name, seeds in forms.items():
            self._values[name] = float(
                np.mean([figure(own.sum(0, keepdims=True))[0] for own in seeds])
            )
            table = np.stack([figure(weights @ own) for own in seeds])
            picks = rng.integers(len(seeds), size=(len(seeds), RESAMPLES))
            self._samples[name] = np.take_along_axis(table, picks, axis=0).mean(0)

    def interval(self, name: str) -> Interval:
        """Return a form's figure."""
        return _interval(self._values[name], self._samples[name], LEVEL)

    def difference(self, name: str, other: str, comparisons: int = 1) -> Interval:
        """Return the figure of a form minus that of another.

        Of several comparisons each has a wider interval, so that all hold together with a
        probability of 95 % (Bonferroni).
        """
        value = self._values[name] - self._values[other]
        samples = self._samples[name] - self._samples[other]
        return _interval(value, samples, LEVEL / comparisons)


def is_told_apart(difference: Interval) -> bool:
    """Return whether 0 lies outside of the interval of a difference."""
    return difference.low > 0 or difference.high < 0


def _interval(value: float, samples: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(samples, [level / 2, 1 - level / 2])
    return Interval(value, float(low), float(high))


def at_tokens(
    tokens: Sequence[int], values: Sequence[np.ndarray], wanted: float
) -> np.ndarray | None:
    """Return the values at a number of tokens, linear between two points of a curve.

    None if it lies outside of the curve.
    """
    for place, value in zip(tokens, values, strict=True):
        if place == wanted:
            return value
    pairs = itertools.pairwise(zip(tokens, values, strict=True))
    for (before, low), (after, high) in pairs:
        if before < wanted < after:
            share = (wanted - before) / (after - before)
            return low + share * (high - low)
    return None
