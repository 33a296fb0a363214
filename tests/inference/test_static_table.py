import json
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import bertjax
from bertjax.cli.embed import run
from bertjax.errors import UserError
from bertjax.inference.static_table import cut, is_static_table, read_static_table
from tests.compression.static.teachers import VOCABULARY, WORDS, wordpiece

PACKAGE = "sentence_transformers.models."
MODULES = [
    {"idx": 0, "name": "0", "path": ".", "type": f"{PACKAGE}StaticEmbedding"},
    {"idx": 1, "name": "1", "path": "1_Normalize", "type": f"{PACKAGE}Normalize"},
]
ROWS = np.random.default_rng(0).normal(size=(len(VOCABULARY), 3)).astype(np.float32)
LINES = st.lists(
    st.lists(st.sampled_from([*WORDS, "cats", "unheard"]), max_size=9).map(" ".join), max_size=9
)


def put(folder, modules=MODULES, inner=".", **tensors):
    """Write a table as other programs do."""
    (folder / inner).mkdir(parents=True, exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    wordpiece().save(folder / inner)
    save_file(tensors or {"embeddings": ROWS}, folder / inner / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return put(tmp_path_factory.mktemp("table"))


def plainly(texts, normalizes=True):
    vectors = []
    for text in texts:
        ids = wordpiece().encode_batch([text])[0]
        vector = ROWS[ids].mean(0) if len(ids) else np.zeros(3)
        length = np.linalg.norm(vector)
        vectors.append(vector / length if normalizes and length else vector)
    return np.array(vectors).reshape(-1, 3)


@given(LINES, st.integers(1, 70))
def test_the_vector_of_a_text_is_the_mean_of_its_pieces_with_length_1(table, texts, size):
    found = bertjax.embed(table, texts, batch_size=size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plainly(texts), atol=1e-6)


def test_tables_of_sentence_transformers_are_read(tmp_path):
    """Its own names: of the tensor, and of the module's folder. Without a second module."""
    module = {**MODULES[0], "path": "0_StaticEmbedding"}
    folder = put(tmp_path, [module], "0_StaticEmbedding", **{"embedding.weight": ROWS})
    texts = ["the cat", "", "no one ."]
    np.testing.assert_allclose(bertjax.embed(folder, texts), plainly(texts, False), atol=1e-6)


def test_half_precision_is_read_as_it_is(tmp_path):
    found = read_static_table(put(tmp_path, embeddings=ROWS.astype(np.float16)))
    np.testing.assert_array_equal(found.vectors, ROWS.astype(np.float16).astype(np.float32))


@given(LINES, st.none() | st.integers(1, 4))
def test_texts_are_cut_where_a_length_is_given(table, texts, longest):
    opened = read_static_table(table)
    ids, offsets = opened.encode(texts)
    kept, new_offsets, truncated = cut(ids, offsets, longest)
    wanted = [ids[a:b][:longest].tolist() for a, b in pairwise(offsets)]
    found = [kept[a:b].tolist() for a, b in pairwise(new_offsets)]
    assert found == wanted
    assert truncated == sum(b - a > (longest or 99) for a, b in pairwise(offsets))  # fmt: skip


def test_embed_writes_vectors_of_a_table(table, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("the cat\nno one sees the dog .\n")
    words = [table, tmp_path / "lines.txt", "--output-file", tmp_path / "out.npy"]
    assert run([str(word) for word in words]) == 0
    texts = ["the cat", "no one sees the dog ."]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), plainly(texts), atol=1e-6)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == [
        f"table of word vectors: {table}",
        "lines: 2",
        "vectors: 2 of 3 numbers, float32",
    ]
    words[-1] = tmp_path / "out.parquet"
    assert run([*(str(word) for word in words), "--max-seq-length", "3"]) == 0
    assert "truncated lines: 1 (longer than 3 ids)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layers": "sum_last_four"}, "layers: found 'sum_last_four', expected last: a table"),
        ({"pooling": "tokens"}, "pooling: found 'tokens', expected mean: a table of word vectors"),
        ({"max_seq_length": 0}, "max_seq_length: found 0, expected a number above 0"),
    ],
)
def test_what_a_table_does_not_have_is_refused(table, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        bertjax.embed(table, ["the cat"], **options)


def test_a_run_is_no_table_and_a_table_no_run(table, tmp_path):
    assert is_static_table(table)
    assert not is_static_table(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": f"{PACKAGE}Transformer"}]))
    assert not is_static_table(tmp_path)
    with pytest.raises(UserError, match="model2vec|config.json"):
        bertjax.import_model(table, tmp_path / "run")
    with pytest.raises(UserError, match="checkpoint"):
        bertjax.fill_mask(table, "the [MASK]")


DENSE = [*MODULES, {"path": "2_Dense", "type": f"{PACKAGE}Dense"}]
UP = [{**MODULES[0], "path": "../other"}]
HALF = [{**MODULES[0], "path": "\ud800"}]


@pytest.mark.parametrize(
    "modules, tensors, message",
    [
        (DENSE, {}, "modules.json: found StaticEmbedding, Normalize, Dense, expected"),
        ([MODULES[0], 3], {}, "modules.json: found a list, expected a list of objects"),
        (UP, {}, "modules.json: path: found '../other', expected the name of a folder"),
        (HALF, {}, "found a name that is no UTF-8, expected one in UTF-8"),
        (MODULES, {"embeddings": ROWS, "mapping": np.arange(3)}, "model.safetensors: mapping: found"),
        (MODULES, {"embeddings": ROWS, "weights": ROWS[0]}, "model.safetensors: weights: found"),
        (MODULES, {"other": ROWS}, "model.safetensors: found other, expected one of embeddings"),
        (MODULES, {"embeddings": ROWS[0]}, "embeddings: found float32 [3], expected floating"),
        (MODULES, {"embeddings": ROWS.astype(np.int8)}, "embeddings: found int8 [19, 3]"),
        (MODULES, {"embeddings": ROWS[:5]}, "found 5 vectors, expected 19, one for each id"),
        (MODULES, {"embeddings": ROWS * np.nan}, "found a number that is not finite"),
    ],
)  # fmt: skip
def test_what_would_give_other_vectors_is_refused_by_name(tmp_path, modules, tensors, message):
    folder = put(tmp_path, modules, **tensors)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read_static_table(folder)
    assert "\n" not in str(error.value)


def test_a_vocabulary_that_lacks_its_unknown_token_is_named_where_a_word_is_unknown(tmp_path):
    file = put(tmp_path) / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["unk_token"] = "[NONE]"
    file.write_text(json.dumps(content))
    table = read_static_table(tmp_path)
    assert len(table.encode(["the cat"])[0]) == 2
    with pytest.raises(UserError, match=r"tokenizer.json: cannot be read by the package"):
        table.encode(["unheard"])


def test_a_prompt_before_each_text_is_refused(tmp_path):
    values = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (put(tmp_path) / "config_sentence_transformers.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="found the prompt 'query: ' before each text"):
        read_static_table(tmp_path)


@pytest.mark.parametrize("name", ["modules.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_or_missing_file_is_named(tmp_path, name):
    file = put(tmp_path) / name
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\xff" * 40):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=re.escape(name)) as error:
            read_static_table(tmp_path)
        assert "\n" not in str(error.value)
    file.unlink()
    with pytest.raises(UserError, match=re.escape(name)):
        read_static_table(tmp_path)
