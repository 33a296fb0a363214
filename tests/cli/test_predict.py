"""`predict` of lines of text: from arguments, a file or standard input, to standard output."""

import io
import json
import re

import jax
import pytest

from bertjax.cli.main import main
from bertjax.finetuning.objective import TaskObjective
from bertjax.tasks import registry
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.tagging.task import Tagging
from bertjax.training.saved_model import save_model
from tests.tasks.tiny import MODEL, TOKENIZER, config_of

TASKS = (SingleLabel("good", ("no", "yes"), ("accuracy",)), Tagging("ner", ("O", "B-LOC")))
LINES = ["the good cat", "", "-5 猫", "rome " * 20_000]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of two tasks with new heads."""
    folder = tmp_path_factory.mktemp("predict") / "run"
    config = config_of("good:classification=gone", "ner:tagging=gone")
    params = jax.jit(TaskObjective(MODEL, TASKS).init)(jax.random.key(3))
    facts = {"tasks": [registry.to_plain(task) for task in TASKS]}
    save_model(folder, config, params, TOKENIZER, facts)
    return str(folder)


def predicted(capsys, *words):
    """(exit status, lines of stdout, stderr)."""
    capsys.readouterr()
    status = main(["predict", *words])
    output = capsys.readouterr()
    return status, output.out.split("\n")[:-1], output.err


def give_stdin(monkeypatch, content):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_each_text_gets_a_line_whichever_way_it_comes(run, tmp_path, capsys, monkeypatch):
    status, lines, errors = predicted(capsys, run, *LINES[:2], "--task", "good", "--", *LINES[2:])
    assert (status, len(lines)) == (0, len(LINES))
    assert all(re.fullmatch(r"(no|yes)\t0\.\d{4}", line) for line in lines)
    assert "compiling the predictions of good" in errors
    assert "good: texts cut to 16 ids: 1 of 4" in errors

    content = "".join(f"{line}\r\n" for line in LINES).encode()
    (tmp_path / "texts.txt").write_bytes(content)
    path = str(tmp_path / "texts.txt")
    assert predicted(capsys, run, "--text-file", path, "--task", "good")[:2] == (0, lines)
    # In windows of 16 texts, each of one batch, and without a last line end.
    monkeypatch.setattr("bertjax.inference.vector_files.WINDOW", 1)
    give_stdin(monkeypatch, (content * 5).removesuffix(b"\r\n"))
    assert predicted(capsys, run, "--text-file", "-", "--task", "good")[:2] == (0, lines * 5)


def test_lines_have_the_encoding_that_the_command_names(run, tmp_path, capsys, monkeypatch):
    encoding = "--finetune.encoding"
    line = "the café sees a dog"
    _, expected, _ = predicted(capsys, run, line, "--task", "good")
    for words in ([encoding, "latin-1"], [f"{encoding}=cp1252"]):
        give_stdin(monkeypatch, line.encode("latin-1"))
        status, lines, _ = predicted(capsys, run, "--text-file", "-", "--task", "good", *words)
        assert (status, lines) == (0, expected)
    path = tmp_path / "texts.txt"
    path.write_bytes(line.encode("latin-1"))
    words = run, "--text-file", str(path), "--task", "good"
    assert predicted(capsys, *words, encoding, "latin-1")[:2] == (0, expected)
    assert "which is not UTF-8, expected UTF-8" in predicted(capsys, *words)[2]
    path.write_bytes(line.encode())
    status, _, errors = predicted(capsys, *words, encoding, "latin-1")
    assert status == 2
    assert f"{path}: found UTF-8, expected latin-1, as finetune.encoding says" in errors
    status, _, errors = predicted(capsys, run, line, "--task", "good", encoding, "latin-1")
    assert status == 2
    assert "--finetune.encoding: found latin-1, expected none with texts as arguments" in errors


def test_words_get_a_tag_each_and_json_has_the_text_beside_it(run, capsys):
    status, lines, _ = predicted(capsys, run, "Rome  sees", "", "--task", "ner", "--json")
    assert status == 0
    rows = [json.loads(line) for line in lines]
    assert [row["text"] for row in rows] == ["Rome  sees", ""]
    assert [len(row["prediction"]) for row in rows] == [2, 0]
    _, lines, _ = predicted(capsys, run, "Rome  sees", "", "--task", "ner")
    assert lines == [" ".join(row["prediction"]) for row in rows]


@pytest.mark.parametrize("words,content,message", [
    (["a"], b"", "task: found none, for a model of 2 tasks, expected one of good, ner"),
    (["a", "--task", "x"], b"", "task: found x, expected one of good, ner"),
    (["a", "b\tc\td", "--task", "good"], b"", "good: text 2: found 3 columns"),
    (["b\udcff", "--task", "good"], b"", r"good: text 1: found the surrogate '\udcff'"),
    (["a", "--text-file", "-"], b"", "predict: texts and --text-file: found both"),
    (["a", "--output-dir", "x"], b"", "--output-dir: found x, expected none with texts"),
    (["a", "--split", "train"], b"", "--split: found train, expected none with texts"),
    (["--task", "good"], b"", "--task: found good, expected texts or --text-file with it"),
    (["--json"], b"", "--json: found True, expected texts"),
    (["--text-file", "-"], b"", "standard input: found no text, expected one or more"),
    (["--text-file", "-", "--task", "good"], b"a\n\xff\n", "standard input, line 2: found the byte 0xff"),
])  # fmt: skip
def test_mistakes_are_named_in_one_line(run, capsys, monkeypatch, words, content, message):
    give_stdin(monkeypatch, content)
    status, lines, errors = predicted(capsys, run, *words)
    assert (status, lines) == (2, [])
    assert errors.startswith(f"bertjax: {message}")
    assert errors.count("\n") == 1


def test_a_file_that_is_given_as_a_text_is_not_answered(run, tmp_path, capsys):
    path = tmp_path / "texts.txt"
    words = run, str(path), "x" * 5000, "--task", "good"
    assert predicted(capsys, *words)[0] == 0
    path.write_text("the cat\n")
    status, lines, errors = predicted(capsys, *words)
    assert (status, lines) == (2, [])
    assert f"{path}: found the name of a file, expected a text; --text-file has" in errors
