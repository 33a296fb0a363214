"""Rows of sources, by the tokenizer's layout, and of targets, which have an end always."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bertjax.data.row_layout import RowLayout, Texts, bert_layout
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.tasks.examples import PairExample
from bertjax.tasks.task import EncodedExamples

log = logging.getLogger("bertjax")


@dataclass(frozen=True)
class EncodedPairs(EncodedExamples):
    """Sources as rows; `targets` may have `target_ids`, int32 [items, T], padded."""

    tokenizer: Tokenizer = field(kw_only=True)
    """The tokenizer of the rows; it also decodes the predicted ids."""


def encode_pairs(
    examples: Sequence[PairExample],
    tokenizer: Tokenizer,
    max_seq_length: int,
    max_target_length: int,
    *,
    name: str,
) -> EncodedPairs:
    """Return a row for each source, such as [CLS] source [SEP], cut to `max_seq_length` ids.

    The result also has `target_ids`, cut to `max_target_length` ids, unless that is 0. The log says
    how many texts were cut. Raises `UserError` with the first example of the task `name` that has
    no target.
    """
    sources = [example.source for example in examples]
    ids, offsets = _framed(tokenizer, tokenizer.layout, sources, max_seq_length, "sources")
    target_arrays: dict[str, np.ndarray] = {}
    if max_target_length:
        texts = targets_of(examples, name)
        # The decoder must learn where a target ends, also where texts have no token after them.
        ends = bert_layout(tokenizer.cls_id, tokenizer.sep_id)
        flat, target_offsets = _framed(tokenizer, ends, texts, max_target_length, "targets")
        # All have one length: a program is compiled for each shape, and sources already have
        # several.
        target_ids = np.full((len(examples), max_target_length), tokenizer.pad_id, np.int32)
        is_target = np.arange(max_target_length)[None, :] < np.diff(target_offsets)[:, None]
        target_ids[is_target] = flat
        target_arrays["target_ids"] = target_ids
    return EncodedPairs(
        ids,
        offsets,
        # Segment 1 begins at the end: a source is one text.
        np.diff(offsets).astype(np.int32),
        np.arange(len(examples), dtype=np.int64),
        target_arrays,
        tokenizer=tokenizer,
    )


def targets_of(examples: Sequence[PairExample], name: str) -> list[str]:
    """Return the targets; `UserError` with the first example of the task `name` without one."""
    for example in examples:
        check(
            example.target is not None,
            where=f"task {name}: example {example.id}",
            found="no target",
            expected="one",
        )
    return [example.target or "" for example in examples]


def _framed(
    tokenizer: Tokenizer, layout: RowLayout, texts: Sequence[str], longest: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids and offsets of a row for each text, cut to `longest` ids.

    The log says how many texts were cut, and names them by `what`.
    """
    inner, begins = tokenizer.encode_batch(texts)
    lengths = np.minimum(np.diff(begins), longest - layout.single_specials)
    truncated = int(np.sum(lengths < np.diff(begins)))
    if truncated:
        log.warning(
            "%s longer than %d ids, which were cut to them: %d of %d",
            what,
            longest,
            truncated,
            len(texts),
        )
    rows = layout.rows(Texts(inner, begins[:-1], lengths))
    return rows.ids, rows.offsets
