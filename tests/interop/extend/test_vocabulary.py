import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.interop.extend import new_words, vocabulary
from bertjax.model import functional
from tests.factory import SMALL_MODEL, random_batch
from tests.interop.extend.small_vocabulary import ENTRIES, wordpiece

MODEL = dataclasses.replace(SMALL_MODEL, vocab_size=len(ENTRIES))
PARAMS = jax.device_get(functional.init(MODEL, jax.random.key(0)))
PARAMS["mlm"]["bias"] = np.linspace(
    -1, 1, len(ENTRIES), dtype=np.float32
)  # zeros would hide a mistake in their order


def words(params):
    return np.asarray(params["embeddings"]["word"]["embedding"])


def bias(params):
    return np.asarray(params["mlm"]["bias"])


def batch(length=16):
    return random_batch(np.random.default_rng(0), 3, length, vocab_size=MODEL.vocab_size)


@functools.partial(jax.jit, static_argnums=0)
def outputs(config, params, batch):
    encoded = functional.encode(config, params, batch, keep_layers=True)
    return encoded.layers_NxBxLxD, functional.mlm_logits(config, params, encoded.hidden_BxLxD)


def test_what_was_given_stays_as_it_was():
    before = jax.tree.map(np.copy, PARAMS)
    vocabulary.extend_vocabulary(MODEL, PARAMS, wordpiece(), [[5, 6]])
    vocabulary.init_word_vectors(
        MODEL, PARAMS, {"a": 5}, {"a": np.ones(16, np.float32) * np.arange(16)}
    )
    jax.tree.map(np.testing.assert_array_equal, before, PARAMS)


@pytest.mark.parametrize("how", ["mean", "pieces"])
@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("multiple", [1, 128])
def test_old_entries_keep_their_bits_and_new_rows_are_as_worked_by_hand(how, padding, multiple):
    known = len(ENTRIES)
    config = dataclasses.replace(MODEL, vocab_size=known + padding)
    params = jax.device_get(functional.init(config, jax.random.key(1)))
    params["mlm"]["bias"] = np.linspace(-1, 1, known + padding, dtype=np.float32)
    pieces = [[5, 9], [7, 7, 12], [11]]
    grown, new = vocabulary.extend_vocabulary(
        config, params, wordpiece(), pieces, how, multiple=multiple
    )
    assert grown.vocab_size == (
        max(known + 3, known + padding) if multiple == 1 or padding == 7 else 128
    )
    for before, after in ((words(params), words(new)), (bias(params)[:, None], bias(new)[:, None])):
        assert len(after) == grown.vocab_size
        np.testing.assert_array_equal(after[:known], before[:known])
        ordinary = before[5:known].mean(axis=0)
        expected = {
            "mean": [ordinary] * 3,
            "pieces": [(before[5] + before[9]) / 2, (2 * before[7] + before[12]) / 3, before[11]],
        }
        np.testing.assert_allclose(
            after[known : known + 3], np.array(expected[how]), rtol=1e-5, atol=1e-7
        )
        if padding == 7:  # rows of the table that are still free
            np.testing.assert_array_equal(after[known + 3 :], before[known + 3 :])
        elif multiple == 128:
            np.testing.assert_allclose(
                after[known + 3 :], np.tile(ordinary, (128 - known - 3, 1)), rtol=1e-5, atol=1e-7
            )


pieces_of_three = st.lists(
    st.lists(st.integers(5, len(ENTRIES) - 1), min_size=1, max_size=4), min_size=3, max_size=3
)


@given(pieces_of_three, st.sampled_from(["mean", "pieces"]))
def test_outputs_of_old_entries_keep_their_bits(pieces, how):
    grown, new = vocabulary.extend_vocabulary(MODEL, PARAMS, wordpiece(), pieces, how)
    hidden, logits = outputs(MODEL, PARAMS, batch())
    hidden_now, logits_now = outputs(grown, new, batch())
    np.testing.assert_array_equal(hidden, hidden_now)
    np.testing.assert_array_equal(logits, logits_now[..., : MODEL.vocab_size])


def test_an_entry_from_the_mean_is_nowhere_likelier_than_an_old_one_on_average():
    grown, new = vocabulary.extend_vocabulary(MODEL, PARAMS, wordpiece(), [[5]], "mean")
    logits = outputs(grown, new, batch())[1]
    np.testing.assert_allclose(logits[..., -1], logits[..., 5:-1].mean(axis=-1), atol=1e-5)
    assert (np.asarray(jax.nn.softmax(logits, axis=-1))[..., -1] <= 1 / (len(ENTRIES) - 5)).all()


def test_a_model_without_the_masked_word_head_has_no_bias_to_extend():
    config = dataclasses.replace(MODEL, heads=("pooler",), embedding_size=8)
    params = functional.init(config, jax.random.key(0))
    grown, new = vocabulary.extend_vocabulary(config, params, wordpiece(), [[5]])
    assert jax.tree.map(np.shape, new) == jax.tree.map(lambda s: s.shape, functional.shapes(grown))
    assert words(new).shape == (len(ENTRIES) + 1, 8)


@pytest.mark.parametrize("pieces", [[[]], [[5], [13]], [[-1]]])
def test_impossible_pieces_are_named(pieces):
    with pytest.raises(
        UserError,
        match=rf"new entry {len(pieces)}: found the pieces .*, expected one or more, each from 0 to 12",
    ):
        vocabulary.extend_vocabulary(MODEL, PARAMS, wordpiece(), pieces)


def test_a_way_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="new rows: found zero, expected mean or pieces"):
        vocabulary.extend_vocabulary(MODEL, PARAMS, wordpiece(), [[5]], "zero")
    small = dataclasses.replace(MODEL, vocab_size=9)
    with pytest.raises(
        UserError, match=r"model.vocab_size: found 9, expected at least the tokenizer's 13"
    ):
        vocabulary.extend_vocabulary(small, PARAMS, wordpiece(), [[5]])


def test_vectors_become_rows_all_scaled_by_one_number():
    rng = np.random.default_rng(0)
    known = new_words.whole_words(wordpiece())
    assert known == {"a": 5, "b": 6, "c": 7, "cat": 11}
    vectors = {
        "a": rng.normal(size=16) * 5,
        "cat": rng.normal(size=16) * 9,
        "dog": rng.normal(size=16),
    }
    config, new, count = vocabulary.init_word_vectors(MODEL, PARAMS, known, vectors)
    assert (config, count) == (MODEL, 2)
    now, before = words(new), words(PARAMS)
    others = [i for i in range(len(ENTRIES)) if i not in (5, 11)]
    np.testing.assert_array_equal(now[others], before[others])
    assert now[[5, 11]].std() == pytest.approx(before[[5, 6, 7, 11]].std(), rel=1e-5)
    scale = now[5] / vectors["a"]
    np.testing.assert_allclose(scale, scale[0], rtol=1e-5)
    np.testing.assert_allclose(now[11] / vectors["cat"], scale[0], rtol=1e-5)


@pytest.mark.parametrize("vectors,message", [
    ({"a": np.ones(15)}, r"the vector of 'a': found shape \[15\], expected \[16\], as model.hidden_size says"),
    ({"dog": np.ones(16)}, r"word vectors: found none of 4 words, expected one or more"),
    ({"a": np.zeros(16)}, r"word vectors: found a deviation of 0.0"),
    ({"a": np.full(16, np.nan)}, r"word vectors: found a deviation of nan"),
])  # fmt: skip
def test_vectors_that_do_not_fit_are_one_line(vectors, message):
    with pytest.raises(UserError, match=message):
        vocabulary.init_word_vectors(MODEL, PARAMS, new_words.whole_words(wordpiece()), vectors)


def test_a_head_with_a_table_of_its_own_gets_rows_too_and_one_without_a_bias_none():
    config = dataclasses.replace(MODEL, mlm_tied=False, biases=())
    params = functional.init(config, jax.random.key(0))
    grown, new = vocabulary.extend_vocabulary(config, params, wordpiece(), [[5, 9]])
    assert jax.tree.map(np.shape, new) == jax.tree.map(lambda s: s.shape, functional.shapes(grown))
    table, before = np.asarray(new["mlm"]["decoder"]), np.asarray(params["mlm"]["decoder"])
    np.testing.assert_array_equal(table[:-1], before)
    np.testing.assert_allclose(table[-1], (before[5] + before[9]) / 2, rtol=1e-5, atol=1e-7)
    (_, logits), (_, now) = outputs(config, params, batch()), outputs(grown, new, batch())
    np.testing.assert_array_equal(logits, now[..., :-1])
