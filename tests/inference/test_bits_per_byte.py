"""Masked bits per byte: by hand, beside plain formulas, and independent of other texts."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.tokenizer import train_tokenizer
from bertjax.errors import UserError
from bertjax.inference.bits_per_byte import MaskedBits, masked_bits
from bertjax.inference.masked_rows import masked_text
from bertjax.model import functional
from tests.factory import SMALL_MODEL, model_in_memory

TEXT = ["The cat sees the other cat's dog.", "The dog sees it, and the cat runs."] * 20
TOKENIZER = train_tokenizer(TokenizerConfig(vocab_size=60), TEXT)
# 21 words in rows of up to 16 ids.
LONG = "The cat sees the dog and the other dog sees the cat.\nIt sees the cat. The dog sees it."
MODEL = dataclasses.replace(SMALL_MODEL, vocab_size=64)


def loaded(folder, config, params=None, **data):
    params = functional.init(config, jax.random.key(1)) if params is None else params
    model = model_in_memory(folder, config, params, TOKENIZER)
    changed = dataclasses.replace(model.config, data=dataclasses.replace(model.config.data, **data))
    return dataclasses.replace(model, config=changed)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return loaded(tmp_path_factory.mktemp("model"), MODEL)


def plain(model, text, *, causal=False):
    """The summed loss of a text, a row at a time and by the plain formula."""
    config, total = model.config.model, 0.0
    for row in masked_text(TOKENIZER, text, config.max_length).rows:
        ids = row.ids.copy()
        if not causal:
            ids[row.positions] = TOKENIZER.mask_id
        batch = {"input_ids": ids[None]}
        if causal:
            batch["causal"] = np.ones((1, 1), np.int32)
        hidden = functional.encode(config, model.params, batch).hidden_BxLxD
        shift = 1 if causal and not config.mlm_shifted else 0
        places = (row.positions - shift)[None]
        logits = functional.mlm_logits(config, model.params, hidden, places)[0]
        log_p = np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32)))
        total -= sum(log_p[i, row.ids[p]] for i, p in enumerate(row.positions))
    return total


def test_a_model_without_a_preference_costs_the_logarithm_of_its_vocabulary(tmp_path):
    params = jax.tree.map(jnp.zeros_like, functional.init(MODEL, jax.random.key(0)))
    (bits,) = masked_bits(loaded(tmp_path, MODEL, params), [LONG])
    assert bits.words == round(0.15 * len(LONG.split()))
    np.testing.assert_allclose(bits.bits, bits.pieces * 6, rtol=1e-6)  # 6 = log2 of 64
    np.testing.assert_allclose(bits.bits_per_byte, bits.pieces * 6 / bits.bytes, rtol=1e-6)


def test_an_unknown_piece_costs_8_bits_more_for_each_byte_it_stands_for(model):
    (bits,) = masked_bits(model, ["猫猫"])
    assert (bits.bytes, bits.unspelled_bytes, bits.words) == (3, 3, 1)
    np.testing.assert_allclose(bits.bits, bits.nats / math.log(2) + 24)
    assert bits.bits_per_byte > 8


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"mlm_shifted": True}, {"dtype": "bfloat16"}])
def test_the_loss_is_that_of_the_plain_formula(tmp_path, changes):
    own = loaded(tmp_path, dataclasses.replace(MODEL, **changes))
    (bits,) = masked_bits(own, [LONG])
    in_float32 = dataclasses.replace(own.config.model, dtype="float32")
    reference = dataclasses.replace(own, config=own.config.replace(model={"dtype": "float32"}))
    assert reference.config.model == in_float32
    np.testing.assert_allclose(bits.nats, plain(reference, LONG), rtol=1e-5)


@pytest.mark.parametrize("is_shifted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_causal_model_sees_what_stands_before_each_piece(tmp_path, is_shifted):
    config = dataclasses.replace(MODEL, mlm_shifted=is_shifted)
    own = loaded(
        tmp_path,
        config,
        causal_share=1.0,
        dynamic_masking=True,
        sentence_objective="none",
        max_predictions_per_seq=15,
        max_seq_length=16,
    )
    (bits,) = masked_bits(own, [LONG])
    np.testing.assert_allclose(bits.nats, plain(own, LONG, causal=True), rtol=1e-5)
    # What follows the text's last masked piece changes nothing.
    assert bits.nats != pytest.approx(plain(own, LONG), rel=1e-4)


def test_the_figure_of_a_text_does_not_depend_on_other_texts(model):
    texts = ["the cat.", LONG, "", "猫"]
    alone = [masked_bits(model, [text])[0] for text in texts]
    assert masked_bits(model, texts) == alone
    assert masked_bits(model, texts[::-1]) == alone[::-1]
    total = sum(alone, MaskedBits())
    assert total.texts == len(texts)
    assert total.bytes == sum(own.bytes for own in alone)


def test_no_text_has_no_figure(model):
    assert masked_bits(model, []) == []
    (empty,) = masked_bits(model, [""])
    assert (empty.bytes, empty.nats) == (0, 0.0)
    assert math.isnan(empty.bits_per_byte)


def test_a_model_that_predicts_no_words_and_a_single_text_are_refused(tmp_path, model):
    discriminator = loaded(tmp_path, dataclasses.replace(MODEL, heads=("rtd",)))
    with pytest.raises(
        UserError, match="model.heads: found rtd, expected mlm.*--network generator"
    ):
        masked_bits(discriminator, ["the cat"])
    with pytest.raises(UserError, match="texts: found one text"):
        masked_bits(model, "the cat")
    with pytest.raises(UserError, match=r"max_seq_length: found 2, expected 3 or more"):
        masked_bits(model, ["the cat"], max_seq_length=2)
