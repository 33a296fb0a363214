import dataclasses
import functools

import jax
import numpy as np
import pytest
from tokenizers import AddedToken

from bertjax.compression.static.piece_vectors import meant_pieces, piece_vectors
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.model import functional
from tests.compression.static.teachers import MEANT, MODEL, VOCABULARY, byte_bpe, wordpiece
from tests.data.tokenizers.family_folders import eurobert
from tests.factory import model_in_memory


def teacher(folder, tokenizer, **fields):
    model = dataclasses.replace(MODEL, **{"vocab_size": max(64, tokenizer.vocab_size)} | fields)
    params = functional.init(model, jax.random.key(1))
    return model_in_memory(folder, model, params, tokenizer)


@functools.partial(jax.jit, static_argnums=0)
def encoded(config, params, ids):
    return functional.encode(config, params, {"input_ids": ids}).hidden_BxLxD


def plainly(model, row, pooling):
    """The vector of one row alone, on one device."""
    ids = np.array([row], np.int32)
    hidden = np.asarray(encoded(model.config.model, jax.device_get(model.params), ids))[0]
    return {"cls": hidden[0], "mean": hidden.mean(0), "max": hidden.max(0)}[pooling]


@pytest.mark.parametrize("pooling, size", [("mean", 1), ("cls", 7), ("max", 512)])
def test_each_vector_is_that_of_the_piece_alone_between_special_tokens(tmp_path, pooling, size):
    model = teacher(tmp_path, wordpiece())
    ids = np.array(MEANT)
    found = piece_vectors(model, ids, pooling, batch_size=size)
    assert (found.dtype, found.shape) == (np.float32, (len(MEANT), 16))
    cls, sep = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")
    for i, vector in zip(MEANT, found, strict=True):
        np.testing.assert_allclose(vector, plainly(model, [cls, i, sep], pooling), atol=2e-5)


def test_rows_have_the_special_tokens_of_the_layout_alone(tmp_path):
    """EuroBERT's rows have no token at their end."""
    tokenizer = read_tokenizer_folder(eurobert(tmp_path / "folder"))
    assert len(tokenizer.layout.after) == 0
    model = teacher(tmp_path / "model", tokenizer)
    piece = int(np.flatnonzero(meant_pieces(tokenizer))[40])
    found = piece_vectors(model, np.array([piece]), "mean")
    wanted = plainly(model, [tokenizer.cls_id, piece], "mean")
    np.testing.assert_allclose(found[0], wanted, atol=2e-5)


def test_special_tokens_and_unused_entries_mean_nothing():
    assert np.flatnonzero(meant_pieces(wordpiece())).tolist() == MEANT


def test_an_unused_entry_that_is_registered_means_something():
    registered = [AddedToken("[unused1]")]
    content = "".join(f"{entry}\n" for entry in VOCABULARY).encode()
    tokenizer = WordPiece("vocab.txt", content, lowercase=True, registered=registered)
    meant = np.flatnonzero(meant_pieces(tokenizer)).tolist()
    assert meant == sorted([*MEANT, VOCABULARY.index("[unused1]")])


def test_a_piece_that_is_half_a_character_has_the_vector_of_its_own_id(tmp_path):
    """As text it would be U+FFFD, which has other ids."""
    tokenizer = byte_bpe()
    ids, _ = tokenizer.encode_batch(["☃"])
    assert len(ids) == 3
    half = int(ids[0])
    assert "\ufffd" in tokenizer.decode([half])
    assert meant_pieces(tokenizer)[ids].all()
    model = teacher(tmp_path, tokenizer)
    found = piece_vectors(model, ids, "mean")
    wanted = plainly(model, [tokenizer.cls_id, half, tokenizer.sep_id], "mean")
    np.testing.assert_allclose(found[0], wanted, atol=2e-5)


def test_a_model_with_fewer_embeddings_than_entries_is_refused(tmp_path):
    small = teacher(tmp_path, wordpiece(), vocab_size=8)
    with pytest.raises(UserError, match="found 19 entries, expected at most model.vocab_size 8"):
        piece_vectors(small, np.array(MEANT), "mean")
