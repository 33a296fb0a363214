import dataclasses
import json

import pytest

from bertjax.cli.zero_shot import run
from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.tokenizer import train_tokenizer
from bertjax.errors import UserError
from bertjax.inference.zero_shot import zero_shot
from bertjax.training.saved_model import save_model
from tests.factory import SMALL_MODEL, small_config
from tests.interop.exported_programs import random_params

LINES = ["the cat sees the dog.", "", "no one."]
LONG = "the dog sees the cat and the cat and the dog and no one else."
MODEL = dataclasses.replace(SMALL_MODEL, num_hidden_layers=1)
OPTIONS = ["--labels", "cat", "dog", "--template", "{} [MASK]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero-shot") / "run"
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=60), [*LINES, LONG] * 2)
    save_model(folder, small_config(model=MODEL), random_params(MODEL), tokenizer, {})
    return str(folder)


def judged(folder, texts, **options):
    return zero_shot(folder, texts, ["cat", "dog"], template="{} [MASK]", **options)


def test_each_text_is_printed_with_its_labels_ranked(folder, capsys):
    assert run([folder, *LINES, *OPTIONS]) == 0
    output = capsys.readouterr()
    # The line of the log is written once in a process, which other tests may have been.
    assert all("compiling the scores" in line for line in output.err.splitlines())
    lines = output.out.splitlines()
    assert lines[::2] == LINES
    for line, (cat, dog) in zip(
        lines[1::2], judged(folder, LINES).probabilities.tolist(), strict=True
    ):
        wanted = [f"cat {cat:.1%}", f"dog {dog:.1%}"]
        assert line == "    " + "   ".join(wanted if cat > dog else wanted[::-1])


def test_a_file_is_judged_in_parts_as_json_and_cut_texts_are_counted(
    folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("bertjax.inference.vector_files.WINDOW", 1)
    texts = [*LINES, LONG] * 4  # of 8 a part
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    options = [
        "--text-file",
        str(tmp_path / "texts.txt"),
        "--json",
        "--calibrate",
        "--batch-size",
        "8",
    ]
    assert run([folder, *OPTIONS, *options]) == 0
    output = capsys.readouterr()
    assert output.err == "truncated texts: 4 of 16\n"
    found = [json.loads(line) for line in output.out.splitlines()]
    assert [each["text"] for each in found] == texts
    wanted = judged(folder, texts, calibrate=True, batch_size=8)
    for each, scores, probabilities in zip(found, wanted.scores, wanted.probabilities, strict=True):
        assert each["scores"] == pytest.approx({"cat": scores[0], "dog": scores[1]}, abs=1e-5)
        assert each["probabilities"] == pytest.approx(
            {"cat": probabilities[0], "dog": probabilities[1]}, abs=1e-5
        )
        assert (
            each["label"]
            == max(each["scores"], key=each["scores"].get)
            == next(iter(each["scores"]))
        )


@pytest.mark.parametrize("words,message", [
    (OPTIONS, r"zero-shot: texts and --text-file: found neither \(texts stand before the options\), expected one of them"),
    (["a", "--text-file", "b", *OPTIONS], "found both, expected one of them"),
    (["a", "--labels", "cat"], "--labels: found cat, expected two or more"),
    (["a"], "--labels: found none, expected two or more"),
    (["a", *OPTIONS[:3], "--template", "{}"], r"template: found '\{\}', expected \{\} for the text and \[MASK\]"),
    (["a", *OPTIONS, "--batch-size", "0"], "--batch-size: found 0, expected a number above 0"),
    (["a", *OPTIONS, "--method", "guess"], "guess"),
    (["--text-file", "missing.txt", *OPTIONS], "missing.txt: cannot be read"),
])  # fmt: skip
def test_mistakes_are_named(folder, words, message):
    with pytest.raises(UserError, match=message):
        run([folder, *words])


def test_a_run_must_be_given():
    with pytest.raises(
        UserError,
        match="bertjax zero-shot: --labels first, expected a run or checkpoint folder before all",
    ):
        run(["--labels", "a", "b"])
