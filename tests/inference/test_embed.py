import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.inference import embed as features
from bertjax.model import functional
from bertjax.model.sparse.product import SparseKernel
from tests.factory import SMALL_MODEL, model_in_memory
from tests.families.tiny import of_each_family, tiny

WORDS = ["the", "cat", "dog", "sees", "##s", "no", "one", "."]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
MODEL = dataclasses.replace(SMALL_MODEL, num_hidden_layers=4, initializer_range=0.2)
LAYERS = ["last", "second_to_last", "sum_last_four", "concat_last_four"]
POOLINGS = ["cls", "mean", "max", "tokens"]
LINES = st.lists(
    st.lists(st.sampled_from([*WORDS, "cats", "unheard"]), max_size=20).map(" ".join), max_size=40
)


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece(
        "vocab.txt", "".join(f"{entry}\n" for entry in VOCABULARY).encode(), lowercase=True
    )


@pytest.fixture(scope="module")
def params():
    return functional.init(MODEL, jax.random.key(1))


@pytest.fixture(scope="module")
def model(tmp_path_factory, params, tokenizer):
    return model_in_memory(tmp_path_factory.mktemp("model"), MODEL, params, tokenizer)


@functools.partial(jax.jit, static_argnums=0)
def _layers(config, params, ids):
    return functional.encode(config, params, {"input_ids": ids}, keep_layers=True).layers_NxBxLxD


def plainly(config, params, tokenizer, text, layers, pooling, longest):
    """One text alone, unpadded."""
    inner = tokenizer.encode_batch([text])[0][: longest - 2]
    ids = np.array([[tokenizer.cls_id, *inner, tokenizer.sep_id]], np.int32)
    every = np.asarray(_layers(config, params, ids))[:, 0].astype(np.float64)
    vectors = {
        "last": every[-1],
        "second_to_last": every[-2],
        "sum_last_four": every[-4] + every[-3] + every[-2] + every[-1],
        "concat_last_four": np.hstack([every[-4], every[-3], every[-2], every[-1]]),
    }[layers]
    return {"cls": vectors[0], "mean": vectors.mean(0), "max": vectors.max(0), "tokens": vectors}[
        pooling
    ]


@given(
    LINES,
    st.sampled_from(LAYERS),
    st.sampled_from(POOLINGS),
    st.sampled_from([1, 7, 9, 64]),
    st.sampled_from([None, 2, 5, 13]),
)
@example(["cat", "", "the dog sees the cat sees no one . ."] * 9, "sum_last_four", "max", 8, None)
def test_each_vector_is_that_of_its_text_alone_unpadded(
    model, params, tokenizer, texts, layers, pooling, size, longest
):
    options = {"layers": layers, "pooling": pooling, "batch_size": size, "max_seq_length": longest}
    found = features.embed(model, texts, **options)
    assert len(found) == len(texts)
    for text, vector in zip(texts, found, strict=True):
        wanted = plainly(MODEL, params, tokenizer, text, layers, pooling, longest or 16)
        assert vector.dtype == np.float32
        assert vector.shape == wanted.shape
        np.testing.assert_allclose(vector, wanted, atol=2e-5)


def test_order_is_kept_over_windows_and_no_more_is_read_than_a_window(model, params, tokenizer):
    texts = ["cat " * (i % 13) + "dog " * (i // 13 % 2) for i in range(1200)]
    read = 0

    def reading():
        nonlocal read
        for read, text in enumerate(texts, 1):  # noqa: B007
            yield text

    calls = []
    progress = lambda *call: calls.append(call)  # noqa: E731
    windows = features.embed_windows(
        model,
        reading(),
        features.EmbedOptions(batch_size=8),
        progress=progress,
        total=len(texts),
    )
    found = [next(windows)]
    assert read == 64 * 8
    found += windows
    assert [len(part.vectors) for part in found] == [512, 512, 176]
    assert calls == [("embed", done, 1200) for done in range(8, 1201, 8)]
    vectors = np.concatenate([part.vectors for part in found])
    for text in sorted(set(texts)):
        same = vectors[[each == text for each in texts]]
        wanted = plainly(MODEL, params, tokenizer, text, "last", "mean", 16)
        np.testing.assert_allclose(same, np.tile(wanted, (len(same), 1)), atol=2e-5)


def test_long_texts_and_their_tokens_make_windows_smaller_and_change_nothing(
    model, params, tokenizer, monkeypatch
):
    texts = ["cat " * (i % 13) for i in range(100)]
    options = features.EmbedOptions(pooling="tokens", batch_size=8)
    whole = list(features.embed_windows(model, texts, options))
    assert len(whole) == 1
    monkeypatch.setattr(features, "WINDOW_VALUES", 50 * MODEL.hidden_size)
    monkeypatch.setattr(features, "WINDOW_CHARACTERS", 1000)
    parts = list(features.embed_windows(model, texts, options))
    assert 10 < len(parts) < 30
    assert max(len(part.vectors) for part in parts) <= 50 + 16
    assert sum(len(part.offsets) - 1 for part in parts) == 100
    np.testing.assert_allclose(
        np.concatenate([part.vectors for part in parts]), whole[0].vectors, atol=2e-5
    )
    np.testing.assert_array_equal(np.concatenate([part.ids for part in parts]), whole[0].ids)


def test_a_batch_lies_on_all_devices_sorted_and_little_padded(
    model, params, tokenizer, monkeypatch
):
    seen = []
    compute = features._features

    def watched(config, params, batch, *rest):
        seen.append((batch["input_ids"].shape, len(batch["input_ids"].sharding.device_set)))
        return compute(config, params, batch, *rest)

    monkeypatch.setattr(features, "_features", watched)
    features.embed(
        model,
        ["cat"] * 8 + ["cat " * 12] * 3 + ["cat " * 5] * 5 + ["no"],
        batch_size=7,
    )
    assert seen == [((8, 16), 8), ((8, 8), 8), ((8, 8), 8)]


def test_layers_are_chosen_by_name_and_too_few_are_an_error():
    layers = jnp.arange(5.0)[:, None, None, None] + jnp.zeros((5, 1, 2, 3))
    encoded = functional.Encoded(layers[-1], layers, layers[0])
    for name, wanted in (
        ("last", [4]),
        ("second_to_last", [3]),
        ("sum_last_four", [1 + 2 + 3 + 4]),
    ):
        np.testing.assert_array_equal(features.layer_vectors(encoded, name)[0, 0], wanted * 3)
    concatenated = features.layer_vectors(encoded, "concat_last_four")
    np.testing.assert_array_equal(concatenated[0, 1], [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4])
    few = functional.Encoded(layers[2], layers[:3], layers[0])
    with pytest.raises(
        UserError, match="layers sum_last_four: found a model of 3, expected 4 or more"
    ):
        features.layer_vectors(few, "sum_last_four")
    with pytest.raises(ValueError, match="keep_layers=True"):
        features.layer_vectors(functional.Encoded(layers[2], None, layers[0]), "second_to_last")


def test_pooling_reads_real_tokens_only():
    vectors = jnp.array(
        [[[1.0, -4.0], [3.0, -2.0], [50.0, 50.0]], [[-7.0, 0.0], [50.0, 50.0], [50.0, 50.0]]]
    )
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    for pooling, wanted in {
        "cls": [[1, -4], [-7, 0]],
        "mean": [[2, -3], [-7, 0]],
        "max": [[3, -2], [-7, 0]],
        "tokens": vectors,
    }.items():
        np.testing.assert_array_equal(features.pool_tokens(vectors, mask, pooling), wanted)


def test_sums_over_tokens_and_layers_of_a_bfloat16_model_are_float32():
    ones = jnp.full((4, 1, 3, 1), 1 + 2**-7, jnp.bfloat16)
    encoded = functional.Encoded(ones[0], ones.at[0].set(2**-6), ones[0])
    assert (
        float(features.layer_vectors(encoded, "sum_last_four")[0, 0, 0]) == 3 * (1 + 2**-7) + 2**-6
    )
    vectors = jnp.array([[[256.0], [1.0]]], jnp.bfloat16)  # 257 has a bit more than bfloat16
    assert float(features.pool_tokens(vectors, np.ones((1, 2)), "mean")[0, 0]) == 128.5
    for pooling in POOLINGS:
        assert features.pool_tokens(vectors, np.ones((1, 2)), pooling).dtype == jnp.float32


def test_a_bfloat16_model_gives_float32_vectors_near_those_of_float32(model, params, tokenizer):
    texts = ["the cat sees", "no one"]
    config = dataclasses.replace(MODEL, dtype="bfloat16")
    half = features.embed(model_in_memory(model.run_dir, config, params, tokenizer), texts)
    full = features.embed(model, texts)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 0.1


def test_texts_that_are_cut_are_counted_and_said(model, params, tokenizer, caplog):
    texts = ["cat", "the cat sees", "the cat sees the dog", ""]
    options = features.EmbedOptions(max_seq_length=5)
    (part,) = features.embed_windows(model, texts, options)
    assert part.truncated == 1
    assert np.diff(part.offsets).tolist() == [3, 5, 5, 2]
    with caplog.at_level(logging.WARNING, "bertjax"):
        cut = features.embed(model, texts, max_seq_length=5)
    assert caplog.messages == ["texts longer than 5 ids, which were cut to them: 1 of 4"]
    np.testing.assert_allclose(cut[2], cut[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options,message", [
    ({"max_seq_length": 17}, "max_seq_length: found 17, expected 2 to 16, the model's positions"),
    ({"max_seq_length": 1}, "max_seq_length: found 1, expected 2 to 16"),
    ({"batch_size": 0}, "batch_size: found 0, expected a number above 0"),
    ({"layers": "first"}, "layers: found 'first', expected one of last, second_to_last"),
    ({"pooling": "min"}, "pooling: found 'min', expected one of cls, mean, max, tokens"),
])  # fmt: skip
def test_options_out_of_range_are_named(model, params, tokenizer, options, message):
    with pytest.raises(UserError, match=message):
        features.embed(model, ["cat"], **options)


def test_a_model_of_too_few_layers_or_words_is_refused(model, params, tokenizer):
    few = model_in_memory(model.run_dir, SMALL_MODEL, params, tokenizer)
    with pytest.raises(
        UserError, match="layers concat_last_four: found a model of 2, expected 4 or more"
    ):
        features.embed(few, ["cat"], layers="concat_last_four")
    config = dataclasses.replace(MODEL, vocab_size=12)
    small = model_in_memory(model.run_dir, config, params, tokenizer)
    with pytest.raises(
        UserError, match="tokenizer: found 13 entries, expected at most model.vocab_size 12"
    ):
        features.embed(small, ["cat"])


def test_what_the_vectors_lack_of_an_imported_model_is_said_in_one_line(model, caplog):
    features.embed(model, ["the"])
    assert not caplog.records
    features.embed(dataclasses.replace(model, not_taken=("pooling cls", "lower case")), ["the"])
    assert [record.getMessage() for record in caplog.records] == [
        f"{model.run_dir}: vectors without what sentence-transformers does in this model: "
        "pooling cls, lower case"
    ]


def test_letters_of_one_string_are_not_taken_for_texts(model):
    with pytest.raises(UserError, match="texts: found one text, 'abc', expected a list of texts"):
        features.embed(model, "abc")
    with pytest.raises(UserError, match=r"texts\[1\]: found None, a NoneType, expected a text"):
        features.embed(model, ["cat", None])


@of_each_family
def test_a_text_longer_than_the_windows_has_its_own_vector_of_each_family(
    name, tmp_path, tokenizer
):
    config = tiny(name)
    params = jax.jit(lambda: functional.init(config, jax.random.key(1)))()
    model = model_in_memory(tmp_path, config, params, tokenizer)
    texts = [" ".join(WORDS[n % 8] for n in range(count)) for count in (3, 45, 20, 62)]
    together = features.embed(model, texts, max_seq_length=64)
    for text, vector in zip(texts, together, strict=True):
        alone = plainly(config, params, tokenizer, text, "last", "mean", 64)
        np.testing.assert_allclose(vector, alone, rtol=1e-4, atol=2e-5)


def test_sparse_products_give_the_vectors_of_dense_ones(tmp_path, params, tokenizer):
    vectors = []
    for choice in ("never", "always"):
        config = dataclasses.replace(MODEL, sparse_products=choice)
        model = model_in_memory(tmp_path, config, params, tokenizer)
        vectors.append(features.embed(model, ["the cat", "no"]))
    up = model.inference_params["encoder"]["layers"]["mlp"]["up"]
    assert isinstance(up["kernel"], SparseKernel)
    np.testing.assert_allclose(*vectors, atol=1e-5)
