"""Fillers of masks: pieces of the vocabulary, and no special tokens."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.inference.fill_mask import fill_mask
from bertjax.model import functional
from tests.factory import SMALL_MODEL, model_in_memory
from tests.families.tiny import of_each_family, tiny

WORDS = ["the", "cat", "dog", "##s", "猫", "."]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TOKENIZER = WordPiece(
    "vocab.txt", "".join(f"{entry}\n" for entry in VOCABULARY).encode(), lowercase=True
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    params = functional.init(SMALL_MODEL, jax.random.key(1))
    return model_in_memory(tmp_path_factory.mktemp("model"), SMALL_MODEL, params, TOKENIZER)


@pytest.mark.parametrize("top_k", [2, len(WORDS), 1000])
def test_special_tokens_never_fill_a_mask_however_many_are_asked_for(model, top_k):
    (candidates,) = fill_mask(model, "the [MASK] .", top_k=top_k)
    assert len(candidates) == min(top_k, len(WORDS))
    assert {candidate.text for candidate in candidates} <= {*WORDS, "s"}
    probabilities = [candidate.probability for candidate in candidates]
    assert probabilities == sorted(probabilities, reverse=True)
    assert min(probabilities) > 0
    if top_k >= len(WORDS):
        np.testing.assert_allclose(sum(probabilities), 1, rtol=1e-6)


@pytest.mark.parametrize("text", [["the [MASK]"], b"the [MASK]", None])
def test_what_is_no_text_is_refused(model, text):
    with pytest.raises(UserError, match="text: found .*, expected a text"):
        fill_mask(model, text)


def test_texts_without_a_mask_or_too_long_are_refused(model):
    with pytest.raises(UserError, match=r"found no \[MASK\]"):
        fill_mask(model, "the cat")
    with pytest.raises(UserError, match=r"found 17 ids, expected at most 16"):
        fill_mask(model, "[MASK] " * 15)
    with pytest.raises(UserError, match="top_k: found 0"):
        fill_mask(model, "[MASK]", top_k=0)
    # A whole file may be given.
    for text in ("the cat " * 10_000, "the [MASK] " * 10_000):
        with pytest.raises(UserError, match=r"^'the .*'\.\.\.: found") as caught:
            fill_mask(model, text)
        assert len(str(caught.value)) < 200


def test_a_shifted_model_fills_a_mask_from_the_state_before_it(model, tmp_path):
    shifted = dataclasses.replace(SMALL_MODEL, mlm_shifted=True)
    own = model_in_memory(tmp_path, shifted, model.params, TOKENIZER)
    ids = [TOKENIZER.cls_id, *TOKENIZER.encode_with_masks("the [MASK] ."), TOKENIZER.sep_id]
    batch = {"input_ids": np.array([ids], np.int32)}
    hidden = functional.encode(SMALL_MODEL, model.params, batch).hidden_BxLxD
    before = np.array([[ids.index(TOKENIZER.mask_id) - 1]])
    logits = functional.mlm_logits(SMALL_MODEL, model.params, hidden, before)[0, 0]
    words = logits[len(VOCABULARY) - len(WORDS) : len(VOCABULARY)]
    ((best, *_),) = fill_mask(own, "the [MASK] .")
    assert best.probability == pytest.approx(float(jax.nn.softmax(words).max()), rel=1e-4)


@pytest.mark.slow
@of_each_family
def test_masks_of_a_long_text_are_filled_as_in_a_padded_row_of_each_family(name, tmp_path):
    config = tiny(name)
    params = jax.jit(lambda: functional.init(config, jax.random.key(1)))()
    model = model_in_memory(tmp_path, config, params, TOKENIZER)
    text = "the [MASK] . " * 13
    ids = [TOKENIZER.cls_id, *TOKENIZER.encode_with_masks(text), TOKENIZER.sep_id]
    batch = {
        "input_ids": np.array([ids + [0] * (64 - len(ids))], np.int32),
        "input_mask": np.array([[1] * len(ids) + [0] * (64 - len(ids))], np.int32),
    }
    places = np.flatnonzero(np.array(ids) == TOKENIZER.mask_id)[None, :]
    hidden = functional.encode(config, params, batch).hidden_BxLxD
    logits = np.asarray(functional.mlm_logits(config, params, hidden, places))[0]
    words = logits[:, len(VOCABULARY) - len(WORDS) : len(VOCABULARY)]
    expected = np.asarray(jax.nn.softmax(words, axis=-1))
    filled = fill_mask(model, text, top_k=1)
    assert len(filled) == 13
    for (best,), probabilities in zip(filled, expected, strict=True):
        np.testing.assert_allclose(best.probability, probabilities.max(), rtol=1e-4)


def test_sparse_products_fill_masks_as_dense_ones(model):
    config = model.config.replace(model={"sparse_products": "always"})
    dense = fill_mask(model, "the [MASK] cat")
    sparse = fill_mask(dataclasses.replace(model, config=config), "the [MASK] cat")
    for one, other in zip(dense[0], sparse[0], strict=True):
        assert one.text == other.text
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
