import dataclasses
import errno
import gzip

import jax
import numpy as np
import pytest
from etils import epath
from pyarrow import parquet

from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.inference import embed as features
from bertjax.inference import vector_files
from bertjax.model import functional
from tests.factory import SMALL_MODEL, model_in_memory

WORDS = ["the", "cat", "dog", "sees", "##s", "no", "one", "."]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
MODEL = dataclasses.replace(SMALL_MODEL, num_hidden_layers=4, initializer_range=0.2)
TEXTS = ["the cat sees .", "", "dogs"]


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece(
        "vocab.txt", "".join(f"{entry}\n" for entry in VOCABULARY).encode(), lowercase=True
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    params = functional.init(MODEL, jax.random.key(1))
    return model_in_memory(tmp_path_factory.mktemp("model"), MODEL, params, tokenizer)


def written(tmp_path, model, name, pooling, dtype="float32", batch_size=8, texts=TEXTS):
    path = epath.Path(tmp_path) / name
    options = features.EmbedOptions(pooling=pooling, batch_size=batch_size)
    windows = features.embed_windows(model, texts, options)
    counts = vector_files.write_vectors(
        path, windows, model.tokenizer, width=16, pooling=pooling, dtype=dtype
    )
    return path, counts


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_npy_files_hold_the_vectors(tmp_path, model, dtype):
    texts = TEXTS * 400  # three windows
    path, counts = written(tmp_path, model, "out.npy", "mean", dtype, texts=texts)
    assert counts == vector_files.VectorCounts(vectors=1200, texts=1200, truncated=0)
    found = np.load(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, features.embed(model, texts, batch_size=8).astype(dtype))
    assert {p.name for p in path.parent.iterdir()} == {"out.npy"}


def test_npy_files_of_tokens_have_their_offsets_beside_them(tmp_path, model):
    texts = TEXTS * 200  # two windows
    path, counts = written(tmp_path, model, "out.npy", "tokens", texts=texts)
    assert counts == vector_files.VectorCounts(vectors=12 * 200, texts=600, truncated=0)
    flat, offsets = np.load(path, mmap_mode="r"), np.load(path.parent / "out.offsets.npy")
    assert offsets.dtype == np.int64
    assert offsets[:4].tolist() == [0, 6, 8, 12]
    wanted = features.embed(model, texts, pooling="tokens", batch_size=8)
    for vectors, begin, end in zip(wanted, offsets[:-1], offsets[1:], strict=True):
        np.testing.assert_array_equal(flat[begin:end], vectors)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet_files_hold_the_vectors_with_their_lines(tmp_path, model, dtype):
    texts = TEXTS * 200  # two windows
    path, _ = written(tmp_path, model, "out.parquet", "cls", dtype, texts=texts)
    table = parquet.read_table(path)
    assert parquet.ParquetFile(path).num_row_groups == 2
    assert str(table.schema.field("vector").type).startswith("fixed_size_list")
    assert table["line"].to_pylist() == list(range(1, 601))
    found = np.stack(table["vector"].combine_chunks().to_numpy(zero_copy_only=False))
    assert found.dtype == dtype
    wanted = features.embed(model, texts, pooling="cls", batch_size=8)
    np.testing.assert_array_equal(found, wanted.astype(dtype))


def test_parquet_files_of_tokens_hold_words_and_vectors(tmp_path, model):
    path, _ = written(tmp_path, model, "out.parquet", "tokens")
    rows = parquet.read_table(path).to_pylist()
    assert [row["tokens"] for row in rows] == [
        ["[CLS]", "the", "cat", "sees", ".", "[SEP]"],
        ["[CLS]", "[SEP]"],
        ["[CLS]", "dog", "##s", "[SEP]"],
    ]
    wanted = features.embed(model, TEXTS, pooling="tokens", batch_size=8)
    for row, vectors in zip(rows, wanted, strict=True):
        np.testing.assert_array_equal(np.array(row["vectors"], np.float32), vectors)


@pytest.mark.parametrize("name", ["out.npy", "out.parquet"])
@pytest.mark.parametrize("pooling", ["mean", "tokens"])
def test_no_text_gives_an_empty_file(tmp_path, model, name, pooling):
    path, counts = written(tmp_path, model, name, pooling, texts=[])
    assert counts == vector_files.VectorCounts(0, 0, 0)
    if name == "out.npy":
        assert np.load(path).shape == (0, 16)
        assert pooling == "mean" or np.load(path.parent / "out.offsets.npy").tolist() == [0]
    else:
        assert parquet.read_table(path).num_rows == 0


@pytest.mark.parametrize("name", ["out.npy", "out.parquet"])
def test_a_file_that_is_not_finished_is_not_there(tmp_path, model, name):
    path = epath.Path(tmp_path) / name

    def broken():
        yield from features.embed_windows(model, TEXTS)
        assert not path.exists()
        raise UserError("text.txt, line 4: a mistake")

    with pytest.raises(UserError, match="line 4"):
        vector_files.write_vectors(path, broken(), model.tokenizer, width=16, pooling="mean")
    assert list(tmp_path.iterdir()) == []


def test_token_vectors_never_stand_beside_the_offsets_of_others(tmp_path, model, monkeypatch):
    path, _ = written(tmp_path, model, "out.npy", "tokens")
    replace = vector_files._replace_offsets

    def cut_short(*args):
        # The old ones are there until all of the new ones is written.
        assert np.load(path).shape[0] > 4
        replace(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(vector_files, "_replace_offsets", cut_short)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, model, "out.npy", "tokens", texts=["cat"])
    assert [p.name for p in tmp_path.iterdir()] == ["out.offsets.npy"]


def test_a_disk_that_is_full_at_the_offsets_leaves_the_old_vectors_with_theirs(
    tmp_path, model, monkeypatch
):
    written(tmp_path, model, "out.npy", "tokens")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(array):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(vector_files, "_npy_bytes", full)
    with pytest.raises(UserError, match=r"offsets\.npy: cannot be written \(No space left"):
        written(tmp_path, model, "out.npy", "tokens", texts=["cat"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_numbers_that_float16_does_not_hold_are_refused(tmp_path, tokenizer):
    part = features.Vectors(
        np.full((1, 2), 7e4, np.float32), np.array([2, 3], np.int32), np.array([0, 2]), 0
    )
    with pytest.raises(
        UserError, match=r"found the number 7e\+04, expected at most 65504.0, the largest float16"
    ):
        vector_files.write_vectors(
            epath.Path(tmp_path / "x.npy"),
            [part],
            tokenizer,
            width=2,
            pooling="mean",
            dtype="float16",
        )


def test_a_file_that_cannot_be_written_is_named(tmp_path, model):
    with pytest.raises(UserError, match=r"nowhere/out\.npy: cannot be written"):
        written(tmp_path, model, "nowhere/out.npy", "mean")
    with pytest.raises(
        UserError, match=r"out\.csv: found the ending '\.csv', expected \.npy or \.parquet"
    ):
        written(tmp_path, model, "out.csv", "mean")


def test_lines_are_read_as_they_are(tmp_path):
    path = tmp_path / "text.txt"
    content = "\ufeffone\r\n\n three \u2028\x0cstill three\nlast, without an end"
    path.write_bytes(content.encode())
    wanted = ["one", "", " three \u2028\x0cstill three", "last, without an end"]
    assert list(vector_files.read_lines(str(path))) == wanted
    assert vector_files.count_lines(str(path)) == 4
    zipped = tmp_path / "text.txt.gz"
    zipped.write_bytes(gzip.compress(content.encode()))
    assert list(vector_files.read_lines(str(zipped))) == wanted


def test_bad_text_is_named_with_its_line(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("good\n\nbéd\n".encode("latin-1"))
    with pytest.raises(
        UserError,
        match=r"text\.txt, line 3: found the byte 0xe9, which is not UTF-8, expected UTF-8",
    ):
        list(vector_files.read_lines(str(path)))
    with pytest.raises(UserError, match="missing.txt: cannot be read"):
        list(vector_files.read_lines(str(tmp_path / "missing.txt")))
    with pytest.raises(UserError, match="cannot be read"):
        list(vector_files.read_lines(str(tmp_path)))


def test_a_closed_standard_input_is_refused(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="standard input: found it closed, expected one text"):
        list(vector_files.read_lines("-"))
