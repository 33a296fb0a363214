"""`evaluate --text`: masked bits per byte of files, from a run on the disk."""

import dataclasses
import gzip

import jax
import pytest

import bertjax
from bertjax.api.evaluate_text import evaluate_text
from bertjax.cli.main import main
from bertjax.data.tokenizers.tokenizer import train_tokenizer
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.training.saved_model import save_model
from tests.tiny_library import write_library


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_library(folder)
        config = bertjax.load_config("tiny.py")
        lines = (folder / "corpus.txt").read_text().splitlines()
        tokenizer = train_tokenizer(config.tokenizer, lines)
        params = functional.init(config.model, jax.random.key(0))
        save_model("runs/tiny", config, params, tokenizer, {})
    return folder


@pytest.fixture(autouse=True)
def _in_library(library, monkeypatch):
    monkeypatch.chdir(library)


def printed(capsys):
    lines = capsys.readouterr().out.splitlines()
    return dict(line.split(": ") for line in lines)


def test_a_file_has_the_same_figure_as_its_texts_and_as_a_compressed_file(library, capsys):
    text = "\n\n".join((library / "corpus.txt").read_text().split("\n\n")[:12]) + "\n"
    (library / "few.txt").write_text(text)
    with gzip.open("few.txt.gz", "wt") as file:
        file.write(text)
    metrics = evaluate_text("runs/tiny", ["few.txt"]).metrics
    assert evaluate_text("runs/tiny", ["few.txt.gz"]).metrics == metrics
    each = bertjax.masked_bits("runs/tiny", text.strip().split("\n\n"), max_seq_length=32)
    assert metrics["texts"] == len(each) == 12
    assert metrics["bytes"] == sum(own.bytes for own in each)
    total = sum(own.bits for own in each) / metrics["bytes"]
    assert metrics["masked_bits_per_byte"] == pytest.approx(total, rel=1e-12)
    assert main(["evaluate", "runs/tiny", "--text", "few.txt"]) == 0
    shown = printed(capsys)
    assert shown["masked_bits_per_byte"] == f"{metrics['masked_bits_per_byte']:.4f}"
    assert shown["bytes"] == f"{metrics['bytes']:,d}"


def test_unknown_characters_are_told_and_do_not_make_a_figure_better(library):
    (library / "other.txt").write_text("猫が犬を見る。\n\nΗ γάτα βλέπει.\n")
    metrics = evaluate_text("runs/tiny", ["other.txt"]).metrics
    assert metrics["unspelled_bytes"] == 1
    assert metrics["masked_bits_per_byte"] > 8


def test_mistakes_are_one_line(library, capsys):
    (library / "empty.txt").write_text("")
    for words, line in (
        (["--text", "empty.txt"], "empty.txt: found no text"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--network", "generator"], "--network: found generator, expected --text with it"),
        (["--text", "corpus.txt", "--network", "generator"], "network: found generator"),
        (["--text", "corpus.txt", "--train.batch-size", "4"], "--text: found options of the"),
        (["--text", "sql:sqlite:///x.db?query=SELECT 1"], "found a database"),
    ):
        assert main(["evaluate", "runs/tiny", *words]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert len(error.splitlines()) == 1, error


@pytest.mark.slow
def test_a_run_that_predicts_no_words_is_refused_and_its_generator_is_not(library):
    config = bertjax.load_config("tiny.py")
    config = dataclasses.replace(
        config.replace(
            model={"heads": ("rtd",)},
            replaced={"generator": "tied", "generator_size": 0.5},
            data={"sentence_objective": "none", "prepared_dir": "prepared/none"},
        )
    )
    bertjax.prepare(config, "prepared/none")
    bertjax.train(config, "runs/replaced")
    with pytest.raises(UserError, match="found rtd, expected mlm.*--network generator"):
        evaluate_text("runs/replaced", ["corpus.txt"])
    metrics = evaluate_text("runs/replaced", ["corpus.txt"], network="generator").metrics
    assert 0 < metrics["masked_bits_per_byte"] < 100
