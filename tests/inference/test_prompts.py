"""Prompts as rows of every layout: what a text becomes with the ids around it."""

import numpy as np

from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.inference.prompts import make_prompts
from tests.data.test_row_layout import by_layout, plain_row, with_layout

WORDS = ["it", "is", "about", "a", "cat", "dog", "##s", "fish", "."]
CONTENT = "".join(f"{w}\n" for w in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
LABELS = ["cat", "dogs"]


def inner(tokenizer, text):
    return tokenizer.encode_with_masks(text).tolist()


def row_of(prompt, text):
    """The ids of a text in its prompt, and their segments."""
    ids = [*prompt.before.tolist(), *text, *prompt.after.tolist()]
    second = prompt.first + (len(text) if prompt.text_first else 0)
    return ids, [0] * second + [1] * (len(ids) - second)


@by_layout
def test_a_text_with_the_masks_of_a_label_is_a_row_of_one_text(layout):
    tokenizer = with_layout(WordPiece("v", CONTENT.encode(), True), layout)
    for template in ("it is {} about [MASK] .", "[MASK] {}", "{} [MASK]"):
        prompts = make_prompts(tokenizer, template, LABELS, "mask")
        for prompt, masks in zip(prompts, (1, 2), strict=True):
            filled = template.replace("[MASK]", " [MASK]" * masks).replace("{}", "a fish")
            expected = plain_row(layout, inner(tokenizer, filled), None)
            assert row_of(prompt, inner(tokenizer, "a fish")) == expected
            assert prompt.before.dtype == prompt.after.dtype == np.int32


@by_layout
def test_a_text_and_the_sentence_of_a_label_are_a_row_of_two_texts(layout):
    tokenizer = with_layout(WordPiece("v", CONTENT.encode(), True), layout)
    text = inner(tokenizer, "a fish")
    for template in ("{} it is [MASK] .", "it is [MASK] . {}"):
        prompts = make_prompts(tokenizer, template, LABELS, "next-sentence")
        for prompt, label in zip(prompts, LABELS, strict=True):
            sentence = inner(tokenizer, f"it is {label} .")
            pair = (text, sentence) if template.startswith("{}") else (sentence, text)
            assert row_of(prompt, text) == plain_row(layout, *pair)
