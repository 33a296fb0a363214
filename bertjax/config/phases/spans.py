"""Spans of a run: numbers of tokens as numbers of steps."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bertjax.config.training import OptimizerConfig, TrainConfig

SUFFIXES = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
"""Ends of a number of tokens or steps in a text, such as 50B, and their factors."""


class Span(NamedTuple):
    """Steps that follow one another, all with the same number of tokens."""

    steps: int
    tokens_per_step: int
    """Rows of the batch times their length, padding included."""


def steps_of(tokens: int, spans: Iterable[Span]) -> int:
    """Return the smallest number of steps from the beginning of `spans` with `tokens` or more.

    All steps together, where they have fewer.

    >>> steps_of(2_500, [Span(2, 1_000), Span(10, 100)])
    7
    """
    steps, left = 0, tokens
    for span in spans:
        needed = -(-left // span.tokens_per_step)
        if needed <= span.steps:
            return steps + needed
        steps, left = steps + span.steps, left - span.steps * span.tokens_per_step
    return steps


def tokens_of(steps: int, spans: Iterable[Span]) -> int:
    """Return the number of tokens of the first `steps` steps of `spans`."""
    tokens, left = 0, steps
    for span in spans:
        taken = min(left, span.steps)
        tokens, left = tokens + taken * span.tokens_per_step, left - taken
    return tokens


def optimizer_in_steps(optimizer: OptimizerConfig, spans: Sequence[Span]) -> OptimizerConfig:
    """Return `optimizer` with its numbers of tokens as numbers of steps; `spans` are its steps."""
    changes: dict[str, Any] = {}
    if optimizer.warmup_tokens:
        changes["warmup_steps"] = steps_of(optimizer.warmup_tokens, spans)
    if optimizer.decay_tokens:
        # The decay is at the end, so its tokens are counted back from there.
        changes["decay_steps"] = steps_of(optimizer.decay_tokens, reversed(spans))
    if not changes:
        return optimizer
    return dataclasses.replace(optimizer, warmup_tokens=0, decay_tokens=0, **changes)


def train_in_steps(train: TrainConfig, spans: Sequence[Span]) -> TrainConfig:
    """Return `train` with the tokens of its batch's growth as steps; `spans` are its steps."""
    if not train.batch_size_tokens:
        return train
    steps = max(1, steps_of(train.batch_size_tokens, spans))
    return dataclasses.replace(train, batch_size_tokens=0, batch_size_steps=steps)
