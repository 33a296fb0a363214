"""Prompts for classification without training: a template with a text, and a label or masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, excerpt

Method = Literal["mask", "next-sentence"]
TEXT, MASK = "{}", "[MASK]"


@dataclass(frozen=True)
class Prompt:
    """The ids before and after the text, in rows that score one or more of the labels."""

    labels: np.ndarray
    """int64 [C], indices of the labels that these rows score."""
    pieces: np.ndarray
    """int32 [C, K], the ids of each label, one for each of K masks; [1, 0] for next-sentence."""
    before: np.ndarray
    """int32 ids before the text, such as [CLS] first."""
    after: np.ndarray
    """int32 ids after the text, such as [SEP] last."""
    first: int
    """Number of ids of `before` and `after` with token type 0."""
    text_first: bool = True
    """True if the text has token type 0, else 1."""


def make_prompts(
    tokenizer: Tokenizer, template: str, labels: Sequence[str], method: Method
) -> list[Prompt]:
    """Make the prompts of a template.

    With the method `mask` there is one prompt for each number of pieces that a label has, with
    `next-sentence` one for each label.

    Raises `UserError` for the labels and the template as `zero_shot` does.
    """
    good = template.count(TEXT) == 1 and template.count(MASK) == 1
    check(
        good,
        where="template",
        found=excerpt(template),
        expected=f"{TEXT} for the text and {MASK} for the label, each once",
    )
    check(
        len(labels) > 1, where="labels", found=", ".join(labels) or "none", expected="two or more"
    )
    pieces = _pieces_of(tokenizer, template, labels)
    _check_pieces(tokenizer, labels, pieces)
    if method == "mask":
        return _mask_prompts(tokenizer, template, pieces)
    return _next_sentence_prompts(tokenizer, template, labels)


def _pieces_of(tokenizer: Tokenizer, template: str, labels: Sequence[str]) -> list[np.ndarray]:
    """Return the ids of each label as it stands in the template."""
    # Some tokenizers encode the space before a word with the word, to mark its beginning. So the
    # template's space before [MASK] is encoded with the label.
    is_spaced = template.partition(MASK)[0][-1:].isspace()
    prefix = " " if is_spaced else ""
    ids, begins = tokenizer.encode_batch([prefix + label for label in labels])
    return [ids[begin:end] for begin, end in pairwise(begins)]


def _check_pieces(
    tokenizer: Tokenizer, labels: Sequence[str], pieces: Sequence[np.ndarray]
) -> None:
    """Raise `UserError` if a label has no pieces or an unknown word, or is given twice."""
    for label, own in zip(labels, pieces, strict=True):
        check(len(own) > 0, where="labels", found=excerpt(label), expected="a word or more")
        check(
            # [UNK] stands for any unknown word, so its score would say nothing about the label.
            tokenizer.unk_id not in own,
            where=f"label {excerpt(label)}",
            found="a word without pieces",
            expected="what the vocabulary can spell",
        )
    seen = set()
    repeated = []
    for label, own in zip(labels, pieces, strict=True):
        spelling = tuple(own.tolist())
        if spelling in seen:
            repeated.append(label)
        seen.add(spelling)
    check(
        not repeated,
        where="labels",
        found=f"{', '.join(repeated)} twice",
        expected="different ones",
    )


def _mask_prompts(
    tokenizer: Tokenizer, template: str, pieces: Sequence[np.ndarray]
) -> list[Prompt]:
    left, right = _around(template)
    left_ids, right_ids = tokenizer.encode_with_masks(left), tokenizer.encode_with_masks(right)
    prompts = []
    for masks in sorted({len(own) for own in pieces}):
        labels = np.array([i for i, own in enumerate(pieces) if len(own) == masks])
        before = _ids(tokenizer.layout.before, _repeat_mask(tokenizer, left_ids, masks))
        after = _ids(_repeat_mask(tokenizer, right_ids, masks), tokenizer.layout.after)
        prompts.append(
            Prompt(
                labels,
                np.stack([pieces[i] for i in labels]),
                before,
                after,
                # All ids have token type 0: the text and the template are one sentence.
                first=len(before) + len(after),
            )
        )
    return prompts


def _repeat_mask(tokenizer: Tokenizer, ids: np.ndarray, masks: int) -> np.ndarray:
    """Return `ids` with each mask repeated `masks` times: once for each piece of a label."""
    return np.repeat(ids, np.where(ids == tokenizer.mask_id, masks, 1))


def _next_sentence_prompts(
    tokenizer: Tokenizer, template: str, labels: Sequence[str]
) -> list[Prompt]:
    left, right = _around(template)
    check(
        # A row has two sentences: the text, and the template before or after it.
        not (left and right.strip()),
        where="template",
        found=excerpt(template),
        expected=f"{TEXT} at its beginning or its end",
    )
    sentences = [(left or right).replace(MASK, label).strip() for label in labels]
    ids, begins = tokenizer.encode_batch(sentences)
    layout = tokenizer.layout
    prompts = []
    for label, (begin, end) in enumerate(pairwise(begins)):
        sentence = ids[begin:end]
        if left:  # [CLS] sentence [SEP] text [SEP]
            before = _ids(layout.before, sentence, layout.between)
            after = _ids(layout.after)
            own_of_first = len(layout.before) + len(sentence)
        else:  # [CLS] text [SEP] sentence [SEP]
            before = _ids(layout.before)
            after = _ids(layout.between, sentence, layout.after)
            own_of_first = len(layout.before)
        is_one_type = layout.first_between is None
        first = own_of_first + (layout.first_between or 0)
        if is_one_type:
            first = len(before) + len(after)
        # No pieces means 0 masks, so `zero_shot` puts the rows of all labels into one group.
        no_pieces = np.zeros((1, 0), np.int32)
        text_first = is_one_type or not left
        prompts.append(Prompt(np.array([label]), no_pieces, before, after, first, text_first))
    return prompts


def _around(template: str) -> tuple[str, str]:
    """Return the parts of the template before and after the text."""
    left, _, right = template.partition(TEXT)
    # The space before {} is removed here; `zero_shot` puts it before the text.
    return left.rstrip(), right


def _ids(*parts: tuple[int, ...] | np.ndarray) -> np.ndarray:
    return np.concatenate(parts).astype(np.int32)
