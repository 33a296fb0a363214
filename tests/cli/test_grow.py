import dataclasses
import json

import jax
import numpy as np
import pytest
from etils import epath

from bertjax.cli import fill_mask, grow
from bertjax.config import Config, DataConfig, TokenizerConfig, family
from bertjax.data.tokenizers.tokenizer import load_tokenizer, train_tokenizer
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.training.saved_model import load_model, save_model
from tests.factory import SMALL_MODEL, random_batch

ENTRIES = [*SPECIAL_TOKENS, "the", "cat", "sees", "##s", "a", "b", "##a", "##b", "."]
CONFIG = Config(
    model=dataclasses.replace(SMALL_MODEL, vocab_size=16),
    data=DataConfig(max_seq_length=16, max_predictions_per_seq=4),
)


def run_of(folder, tokenizer, config=CONFIG):
    save_model(folder, config, functional.init(config.model, jax.random.key(0)), tokenizer, {})
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of random parameters whose table of 16 rows has two to spare."""
    tokenizer = WordPiece("vocab.txt", "\n".join(ENTRIES).encode(), lowercase=True)
    return run_of(tmp_path_factory.mktemp("runs") / "source", tokenizer)


def grown(source, to, *words):
    assert grow.run([str(source), "--to", str(to), *map(str, words)]) == 0
    return load_model(to)


def leaves(params):
    return {
        jax.tree_util.keystr(k): np.asarray(v)
        for k, v in jax.tree_util.tree_leaves_with_path(params)
    }


def test_all_at_once_a_grown_model_fills_masks_with_new_words_in_longer_inputs(
    source, tmp_path, capsys
):
    (tmp_path / "new.txt").write_text("abba\nbab\nzoo\n")
    rows = {"The": [3.0] * 8 + [1.0] * 8, "abba": list(range(16))}
    vectors = "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in rows.items())
    (tmp_path / "vectors.txt").write_text(vectors)
    words = [
        "--max-seq-length",
        "100",
        "--new-tokens",
        tmp_path / "new.txt",
        "--vocab-multiple",
        "8",
    ]
    model = grown(source, tmp_path / "to", *words, "--word-vectors", tmp_path / "vectors.txt")
    output = capsys.readouterr().out.splitlines()
    assert output == [
        f"from: {source}/checkpoints/0",
        "positions: 16 before, 100 now, tiled",
        "vocabulary: 14 entries before, 17 now, new rows by pieces; 1 of the new were [UNK] before",
        "rows of the table: 16 before, 24 now",
        f"word vectors: 2 of 9 whole words found in {tmp_path}/vectors.txt",
        f"checkpoint: {tmp_path}/to/checkpoints/0",
    ]
    assert (model.config.model.max_length, model.config.model.vocab_size) == (100, 24)
    assert model.config.data == CONFIG.data
    meta = json.loads((model.checkpoint / "meta" / "metadata").read_text())
    assert meta["grown"] == output[1:-1]
    assert meta["grown_from"] == f"{source}/checkpoints/0"
    tokenizer = load_tokenizer(tmp_path / "to" / "tokenizer")
    assert (
        tokenizer.fingerprint
        == meta["tokenizer_fingerprint"]
        != load_tokenizer(source / "tokenizer").fingerprint
    )
    assert tokenizer.encode_batch(["the abba sees a zoo"])[0].tolist() == [5, 14, 7, 9, 16]

    before, table = (
        load_model(source).params,
        np.asarray(model.params["embeddings"]["word"]["embedding"]),
    )
    np.testing.assert_array_equal(
        table[16], np.asarray(before["embeddings"]["word"]["embedding"])[1]
    )  # [UNK]
    ratio = table[14][1:] / np.arange(1, 16)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    np.testing.assert_allclose(table[5], np.array(rows["The"]) * ratio[0], rtol=1e-5)

    sentence = "the cat " * 40 + "sees [MASK]."
    assert fill_mask.run([str(tmp_path / "to"), sentence, "--top-k", "17"]) == 0
    filled = capsys.readouterr().out.splitlines()[1]
    for word in ("abba", "bab", "zoo", "cat"):
        assert f" {word} " in filled


@pytest.mark.slow
def test_only_longer_keeps_everything_else_to_the_bit_and_needs_no_tokenizer(source, tmp_path):
    model = grown(source, tmp_path / "to", "--max-seq-length", 40)
    before, after = leaves(load_model(source).params), leaves(model.params)
    differing = [name for name in before if not np.array_equal(before[name], after[name])]
    assert differing == ["['embeddings']['position']['embedding']"]
    batch = random_batch(np.random.default_rng(0), 2, vocab_size=14)
    assert (tmp_path / "to/tokenizer/vocab.txt").read_bytes() == (
        source / "tokenizer/vocab.txt"
    ).read_bytes()
    limits = [
        json.loads((run / "tokenizer/tokenizer_config.json").read_text())
        for run in (source, tmp_path / "to")
    ]
    assert limits[1] == limits[0] | {"model_max_length": 40}
    one, two = (
        functional.encode(m.config.model, jax.device_get(m.params), batch).hidden_BxLxD
        for m in (load_model(source), model)
    )
    np.testing.assert_array_equal(one, two)
    bare = run_of(tmp_path / "bare", None)
    stretched = grown(
        bare, tmp_path / "stretched", "--max-seq-length", 31, "--positions", "interpolate"
    )
    table = leaves(stretched.params)["['embeddings']['position']['embedding']"]
    np.testing.assert_array_equal(
        table[::2], leaves(load_model(bare).params)["['embeddings']['position']['embedding']"]
    )


@pytest.mark.slow
def test_a_larger_model_of_another_composition_with_longer_inputs(tmp_path, capsys):
    sizes = {
        name: getattr(CONFIG.model, name)
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    }
    fields = sizes | {"intermediate_size": 24, "max_position_embeddings": 16}
    config = dataclasses.replace(CONFIG, model=family("modernbert", **fields, local_attention=8))
    tokenizer = WordPiece("vocab.txt", "\n".join(ENTRIES).encode(), lowercase=True)
    source = run_of(tmp_path / "source", tokenizer, config)
    words = "--hidden-size 40 --num-hidden-layers 3 --intermediate-size 64 --max-seq-length 32"
    model = grown(
        source, tmp_path / "to", *words.split(), "--positions", "scale", "--rotary-base", "1e6"
    )
    assert capsys.readouterr().out.splitlines()[1:-1] == [
        "hidden_size: 16 before, 40 now",
        "num_hidden_layers: 2 before, 3 now",
        "intermediate_size: 24 before, 64 now",
        "num_attention_heads: 2 before, 5 now",
        "positions: 16 before, 32 now, scaled",
        "rotary_base: 160,000.0 before, 1,000,000.0 now",
    ]
    changed = {
        name: getattr(model.config.model, name) for name in ("rotary_base", "rotary_scaling")
    }
    assert changed == {"rotary_base": 1e6, "rotary_scaling": 2.0}
    rows = random_batch(np.random.default_rng(0), 3, 32, vocab_size=16)
    hidden = functional.encode(model.config.model, model.params, rows).hidden_BxLxD
    assert hidden.shape == (3, 32, 40)
    assert np.isfinite(hidden).all()


def test_new_words_take_free_rows_first(source, tmp_path):
    (tmp_path / "new.txt").write_text("abba\nbab\n")
    model = grown(
        source, tmp_path / "to", "--new-tokens", tmp_path / "new.txt", "--new-rows", "mean"
    )
    assert model.config.model.vocab_size == 16
    table = np.asarray(model.params["embeddings"]["word"]["embedding"])
    np.testing.assert_allclose(
        table[14:16], np.stack([table[5:14].mean(axis=0)] * 2), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("words,message", [
    ([], r"--to: found nothing, expected a folder for the new run"),
    (["--to", "TMP/to", "--hidden-size", "32", "--positions", "tile"], "--positions: found tile, expected --max-seq-length beside it"),
    (["--to", "TMP/to", "--hidden-size", "-8"], "--hidden-size: found -8, expected a number above 0"),
    (["--to", "TMP/to", "--hidden-size", "8"], "model.hidden_size: found 8, expected 16 or more"),
    (["--to", "TMP/to", "--rotary-base", "160000"], "rotary base: found a model with model.positions learned"),
    (["--to", "TMP/to"], r"bertjax grow: found nothing to do, expected --max-seq-length, --new-tokens, --word-vectors, or a size"),
    (["--to", "SOURCE", "--max-seq-length", "40"], r"source: found files there, expected a folder that is new or empty"),
    (["--to", "TMP/to", "--max-seq-length", "8"], r"length: found 8, expected more than 16"),
    (["--to", "TMP/to", "--max-seq-length", "40", "--positions", "stretch"], r"positions.*invalid choice|invalid choice.*positions"),
    (["--to", "TMP/to", "--new-tokens", "TMP/none.txt"], r"none.txt: cannot be read as a list of words"),
    (["--to", "TMP/to", "--new-tokens", "TMP/new.txt"], r"new.txt, line 2: found 'cat', which is in the vocabulary already"),
    (["--to", "TMP/to", "--word-vectors", "TMP/vectors.txt"], r"vectors.txt, line 1: found vectors of width 2, expected 16"),
    (["--to", "TMP/to", "--max-seq-legnth", "40"], r"--max-seq-legnth: no such option of `bertjax grow RUN`; the nearest is --max-seq-length"),
])  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(source, tmp_path, words, message):
    (tmp_path / "new.txt").write_text("dog\ncat\n")
    (tmp_path / "vectors.txt").write_text("the 1 2\n")
    words = [word.replace("TMP", str(tmp_path)).replace("SOURCE", str(source)) for word in words]
    with pytest.raises(UserError, match=message):
        grow.run([str(source), *words])
    assert not (tmp_path / "to").exists()


@pytest.mark.slow
def test_sentencepiece_takes_vectors_but_no_new_words(tmp_path):
    tokenizer = train_tokenizer(
        TokenizerConfig(kind="unigram", vocab_size=40), ["the cat sees the cat"] * 50
    )
    config = dataclasses.replace(
        CONFIG, model=dataclasses.replace(CONFIG.model, vocab_size=tokenizer.vocab_size)
    )
    source = run_of(tmp_path / "source", tokenizer, config)
    (tmp_path / "new.txt").write_text("dog\n")
    with pytest.raises(
        UserError, match="found a tokenizer of kind unigram, which takes no new entries"
    ):
        grow.run(
            [str(source), "--to", str(tmp_path / "to"), "--new-tokens", str(tmp_path / "new.txt")]
        )
    (tmp_path / "vectors.txt").write_text("cat " + " ".join(map(str, range(16))) + "\n")
    model = grown(source, tmp_path / "to", "--word-vectors", tmp_path / "vectors.txt")
    row = model.params["embeddings"]["word"]["embedding"][tokenizer.encode_batch(["cat"])[0][0]]
    np.testing.assert_allclose(row[1:] / row[1], np.arange(1, 16), rtol=1e-5)
    assert epath.Path(tmp_path / "to" / "tokenizer" / "spiece.model").exists()
