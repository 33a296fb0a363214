"""The text of a phase: the words that it may have, and what each means."""

import re
import shlex
import typing
from fractions import Fraction
from typing import Any

from bertjax.config.data import DataConfig
from bertjax.config.field_types import field_types, field_value, shown
from bertjax.config.model import ModelConfig
from bertjax.config.phases.spans import SUFFIXES
from bertjax.config.training import OptimizerConfig, TrainConfig
from bertjax.errors import check, mismatch, nearest

RATE, MASKS, GROWTH = "rate", "masks", "growth"
"""Courses: the learning rate, the mask rate and the growth of the batch, which change by the step.

A course goes on through phases that change none of its fields.
"""
FIELDS: dict[str, str] = {
    "optimizer.schedule": RATE,
    "optimizer.peak_learning_rate": RATE,
    "optimizer.warmup_steps": RATE,
    "optimizer.warmup_tokens": RATE,
    "optimizer.end_learning_rate": RATE,
    "optimizer.schedule_steps": RATE,
    "optimizer.decay_steps": RATE,
    "optimizer.decay_tokens": RATE,
    "optimizer.decay_shape": RATE,
    "optimizer.decay_factor": RATE,
    "optimizer.milestones": RATE,
    "optimizer.weight_decay": "",
    "data.mlm_probability": MASKS,
    "data.mlm_probability_to": MASKS,
    "data.mlm_probability_steps": MASKS,
    "data.max_predictions_per_seq": "",
    "data.objective": "",
    "data.causal_share": "",
    "data.masking": "",
    "data.mask_shares": "",
    "data.prepared_dir": "",
    "data.mixture": "",
    "data.mixture_weights": "",
    "data.mixture_exponent": "",
    "data.max_seq_length": "",
    "data.max_sequences_per_row": "",
    "data.cross_documents": "",
    "train.batch_size": GROWTH,
    "train.batch_size_schedule": GROWTH,
    "train.max_batch_size": GROWTH,
    "train.batch_size_steps": GROWTH,
    "train.batch_size_tokens": GROWTH,
    "train.gradient_accumulation_steps": "",
    "model.mlm_shifted": "",
    "model.embedding_noise": "",
    "model.embedding_noise_kind": "",
    "model.rotary_base": "",
    "model.rotary_base_local": "",
    "model.remat": "",
    "model.kernels": "",
    "model.scan_unroll": "",
}
"""The fields that a phase may change, and the course that each belongs to; "": to none.

A field can be listed if the parameters and the optimizer's state keep their shapes, and if nothing
outside the phase's own batches, step and evaluation reads it. An objective that a phase names has
its place here.
"""
RESETS: dict[str, dict[str, Any]] = {
    # A warmup is not repeated because a later phase names another rate.
    RATE: {
        "optimizer.warmup_steps": 0,
        "optimizer.warmup_tokens": 0,
        "optimizer.schedule_steps": 0,
    },
    MASKS: {"data.mlm_probability_to": 0.0, "data.mlm_probability_steps": 0},
    # Of two fields for one thing the first counts, so the one that is not named must not stay.
    "optimizer.schedule": {"optimizer.decay_tokens": 0},
    "optimizer.decay_steps": {"optimizer.decay_tokens": 0},
    "optimizer.warmup_steps": {"optimizer.warmup_tokens": 0},
    "train.batch_size_schedule": {"train.batch_size_tokens": 0},
    "train.batch_size_steps": {"train.batch_size_tokens": 0},
    "data.mixture": {"data.mixture_weights": ()},
    "data.prepared_dir": {"data.mixture": (), "data.mixture_weights": ()},
}
"""Values that other fields get where a phase names a field, or one of a course, if it does not name
them too.
"""
SECTIONS = {
    "data": DataConfig,
    "model": ModelConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
}
FROM, STEPS, TOKENS = "from", "steps", "tokens"
NUMBER = re.compile(rf"(\d+(?:\.\d+)?)([{''.join(SUFFIXES)}]?)")


def parse_phase(text: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return (words of the span, changed fields) of a phase's text, such as
    `tokens=50B data.max_seq_length=512`.

    The fields have their values by dotted names. Raises `UserError` for a word that is neither.

    >>> parse_phase("steps=10 optimizer.peak_learning_rate=1e-4")
    ({'steps': '10'}, {'optimizer.peak_learning_rate': 0.0001})
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise mismatch(where="phases", found=shown(text), expected="closed quotes") from error
    span: dict[str, str] = {}
    changes: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        check(bool(equals), where="phases", found=shown(word), expected="NAME=VALUE")
        check(
            name not in span and name not in changes,
            where="phases",
            found=f"{name} twice",
            expected="once",
        )
        if name in (FROM, STEPS, TOKENS):
            span[name] = value
            continue
        check(
            name in FIELDS,
            where="phases",
            found=shown(name),
            expected=f"from, steps, tokens, or a field that a phase may change"
            f"{nearest(name, (FROM, STEPS, TOKENS, *FIELDS))}",
        )
        changes[name] = _value_of(name, value)
    return span, changes


def _value_of(name: str, text: str) -> Any:
    """Return the value of a field that a phase's text has."""
    section, _, field = name.partition(".")
    kind = field_types(SECTIONS[section])[field]
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        parts = text.split(",") if text else []
        return tuple(field_value(item, _scalar(item, part, name), name) for part in parts)
    return field_value(kind, _scalar(kind, text, name), name)


def _scalar(kind: Any, text: str, name: str) -> Any:
    if kind is bool:
        words = {"true": True, "false": False}
        check(text.lower() in words, where=name, found=shown(text), expected="True or False")
        return words[text.lower()]
    if kind is int:
        return count_of(text, name)
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise mismatch(where=name, found=shown(text), expected="a number") from None
    return text


def count_of(text: str, where: str) -> int:
    """Return a whole number from a text such as 900, 1.5M or 50B; `UserError` for another text.

    >>> count_of("1.5M", "tokens")
    1500000
    """
    match = NUMBER.fullmatch(text)
    number = Fraction(0)
    if match:
        number = Fraction(match[1]) * SUFFIXES.get(match[2], 1)
    check(
        match is not None and number.denominator == 1,
        where=where,
        found=shown(text),
        expected=f"a whole number, such as 900, 1.5M or 50B ({', '.join(SUFFIXES)})",
    )
    return int(number)
