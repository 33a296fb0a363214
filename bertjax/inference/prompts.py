"""Prompts for classification without training: a template around a text, and in it each label or
masks for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check

Method = Literal["mask", "next-sentence"]
TEXT, MASK = "{}", "[MASK]"


@dataclass(frozen=True)
class Prompt:
    """The rows of all texts for one or more of the labels: what stands around the text in them."""

    labels: np.ndarray
    """int64 [C], which of the labels these rows judge."""
    pieces: np.ndarray
    """int32 [C, K], what belongs where the K masks are; [1, 0] for the next sentence."""
    before: np.ndarray
    """int32 ids before the text, [CLS] first."""
    after: np.ndarray
    """int32 ids after the text, [SEP] last."""
    first: int
    """How many ids of `before` and `after` are of token type 0."""
    text_first: bool = True
    """Whether the text is of token type 0."""


def make_prompts(
    tokenizer: Tokenizer, template: str, labels: Sequence[str], method: Method
) -> list[Prompt]:
    """What stands around a text: with `mask` a prompt for each number of pieces, else one for each
    label.

    Raises `UserError` as `zero_shot` does for the labels and the template.
    """
    once = template.count(TEXT) == 1 and template.count(MASK) == 1
    check(
        once,
        where="template",
        found=repr(template),
        expected=f"{TEXT} for the text and {MASK} for the label, each once",
    )
    check(
        len(labels) > 1, where="labels", found=", ".join(labels) or "none", expected="two or more"
    )
    spaced = template.partition(MASK)[0][-1:].isspace()
    ids, begins = tokenizer.encode_batch([f" {label}" if spaced else label for label in labels])
    pieces = [ids[begin:end] for begin, end in pairwise(begins)]
    for label, own in zip(labels, pieces, strict=True):
        check(len(own) > 0, where="labels", found=repr(label), expected="a word or more")
        check(
            tokenizer.unk_id not in own,
            where=f"label {label!r}",
            found="a word without pieces",
            expected="what the vocabulary can spell",
        )
    alike = [
        label
        for i, label in enumerate(labels)
        if any(np.array_equal(pieces[i], own) for own in pieces[:i])
    ]
    check(not alike, where="labels", found=f"{', '.join(alike)} twice", expected="different ones")
    return (_mask_prompts if method == "mask" else _next_sentence_prompts)(
        tokenizer, template, labels, pieces
    )


def _mask_prompts(
    tokenizer: Tokenizer, template: str, labels: Sequence[str], pieces: list[np.ndarray]
) -> list[Prompt]:
    before, after = (tokenizer.encode_with_masks(part) for part in _around(template))
    found = []
    for masks in sorted({len(own) for own in pieces}):
        chosen = np.array([i for i, own in enumerate(pieces) if len(own) == masks])
        both = [
            np.repeat(part, np.where(part == tokenizer.mask_id, masks, 1))
            for part in (before, after)
        ]
        whole = _ids(tokenizer.cls_id, both[0]), _ids(both[1], tokenizer.sep_id)
        found.append(
            Prompt(
                chosen, np.stack([pieces[i] for i in chosen]), *whole, first=sum(map(len, whole))
            )
        )
    return found


def _next_sentence_prompts(
    tokenizer: Tokenizer, template: str, labels: Sequence[str], pieces: list[np.ndarray]
) -> list[Prompt]:
    left, right = _around(template)
    check(
        not (left and right.strip()),
        where="template",
        found=repr(template),
        expected=f"{TEXT} at its beginning or its end",
    )
    ids, begins = tokenizer.encode_batch(
        [(left or right).replace(MASK, label).strip() for label in labels]
    )
    cls, sep, found = tokenizer.cls_id, tokenizer.sep_id, []
    for label, (begin, end) in enumerate(pairwise(begins)):
        before, after = _ids(cls), _ids(sep, ids[begin:end], sep)
        if left:
            before, after = _ids(cls, ids[begin:end], sep), _ids(sep)
        first = len(before) + (0 if left else 1)
        found.append(
            Prompt(
                np.array([label]),
                np.zeros((1, 0), np.int32),
                before,
                after,
                first,
                text_first=not left,
            )
        )
    return found


def _around(template: str) -> tuple[str, str]:
    left, _, right = template.partition(TEXT)
    return left.rstrip(), right


def _ids(*parts: int | np.ndarray) -> np.ndarray:
    return np.concatenate([np.atleast_1d(part) for part in parts]).astype(np.int32)
