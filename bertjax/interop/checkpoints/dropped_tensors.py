"""Tensors that the user leaves out of an import, all but the encoder's."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence

from flax.traverse_util import flatten_dict

from bertjax.config import ModelConfig
from bertjax.errors import check, mismatch
from bertjax.interop.checkpoints.drop_patterns import select
from bertjax.interop.checkpoints.tensor_layout import parts_of
from bertjax.interop.checkpoints.tensor_mapping import (
    Tensors,
    has_prefix,
    shapes_in,
)
from bertjax.interop.checkpoints.tensor_names import Dialect


def drop_tensors(
    config: ModelConfig, dialect: Dialect, tensors: Tensors, patterns: Sequence[str]
) -> Tensors:
    """Return `tensors` without those that one of `patterns` selects (`drop_patterns.select`).

    A pattern is for the names in the file, or, where it selects none of them, for today's names.

    Raises `UserError` for a pattern that selects nothing, because it is probably misspelled, and
    for one that selects a parameter of the encoder of `config`.
    """
    if not patterns:
        return tensors
    encoder = set(_encoder_names(config, dialect, tensors))
    shapes = dict(tensors.shapes)
    current = {tensors.in_file(name): name for name in tensors.shapes}
    for pattern in patterns:
        where = f"{tensors.where}: --drop {pattern}"
        in_file = select(current, pattern)
        selected = [current[name] for name in in_file] or select(tensors.shapes, pattern)
        if not selected:
            raise mismatch(
                where=where,
                found="no tensor of such a name",
                expected="the beginning or the ending of one, or a pattern with *"
                + _hint(pattern, tensors, encoder),
            )
        needed = [tensors.in_file(name) for name in selected if name in encoder]
        check(
            not needed,
            where=where,
            found=f"{needed[0] if needed else None} (it selects {len(selected)} tensors)",
            expected="only tensors that the encoder does not need",
        )
        for name in selected:
            shapes.pop(name, None)  # an earlier pattern may have selected it too
    return tensors._replace(shapes=shapes)


def _hint(pattern: str, tensors: Tensors, encoder: Collection[str]) -> str:
    """Return a note about the pattern with wildcards, if names have `pattern` in their middle."""
    anywhere = f"*{pattern}*"
    selected = select(tensors.shapes, anywhere)
    if not selected or not set(selected).isdisjoint(encoder):
        return ""
    return f"; '{anywhere}' selects {len(selected)}, such as {selected[0]}"


def _encoder_names(config: ModelConfig, dialect: Dialect, tensors: Tensors) -> Iterator[str]:
    """Yield the names of the encoder's parameters that `tensors` has."""
    prefixed = has_prefix(tensors, dialect)
    encoder = dataclasses.replace(config, heads=())
    for path, leaf in flatten_dict(shapes_in(encoder, tensors), sep="/").items():
        for part in parts_of(path, leaf.shape, dialect, prefixed):
            if part.name not in tensors.shapes:
                break  # an untrusted configuration may claim any number of layers
            yield part.name
