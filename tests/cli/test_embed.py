import dataclasses
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath
from pyarrow import parquet

from bertjax.cli.embed import run
from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.tokenizer import train_tokenizer
from bertjax.errors import UserError
from bertjax.inference import embed as features
from bertjax.model import functional
from bertjax.training.saved_model import save_model
from tests.factory import SMALL_MODEL, small_config
from tests.waiting import until

LINES = [
    "the cat sees the dog.",
    "",
    "no one.",
    "the dog sees the cat and the cat and the dog and no one else.",
]
MODEL = dataclasses.replace(SMALL_MODEL, num_hidden_layers=4, initializer_range=0.2, heads=())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The run folder of a small encoder, as an import leaves one."""
    folder = tmp_path_factory.mktemp("embed") / "run"
    params = functional.init(MODEL, jax.random.key(0))
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=60), LINES * 2)
    save_model(folder, small_config(model=MODEL), params, tokenizer, {})
    return folder


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path / "text.txt"


def test_embed_writes_a_vector_for_each_line_and_says_what_it_did(model, text, tmp_path, capsys):
    folder = model
    out = tmp_path / "out.npy"
    words = [
        folder,
        text,
        "--output-file",
        out,
        "--layers",
        "sum_last_four",
        "--pooling",
        "max",
        "--max-seq-length",
        8,
    ]
    assert run(list(map(str, words))) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == [
        f"checkpoint: {folder}/checkpoints/0",
        "lines: 4",
        "truncated lines: 1 (longer than 8 ids)",
        "vectors: 4 of 16 numbers, float32",
    ]
    assert printed[4].startswith("seconds: ")
    assert printed[4].endswith(" lines/s)")
    assert printed[5] == f"written: {out}"
    wanted = features.embed(folder, LINES, layers="sum_last_four", pooling="max", max_seq_length=8)
    np.testing.assert_array_equal(np.load(out), wanted)


def test_embed_writes_tokens_to_parquet_in_half_the_space(model, text, tmp_path):
    folder = model
    out = tmp_path / "out.parquet"
    words = [folder, text, "--output-file", out, "--pooling", "tokens", "--vector-dtype", "float16"]
    run(list(map(str, words)))
    rows = parquet.read_table(out).to_pylist()
    assert [row["line"] for row in rows] == [1, 2, 3, 4]
    wanted = features.embed(folder, LINES, pooling="tokens")
    for row, vectors in zip(rows, wanted, strict=True):
        assert (row["tokens"][0], row["tokens"][-1]) == ("[CLS]", "[SEP]")
        np.testing.assert_array_equal(
            np.array(row["vectors"], np.float16), vectors.astype(np.float16)
        )


@pytest.mark.parametrize("words,message", [
    ([], "embed: found no text file, expected a file of one text a line, or - for standard input"),
    (["TEXT"], r"--output-file: found none, expected NAME\.npy or NAME\.parquet"),
    (["TEXT", "--output-file", "out.txt"], r"out\.txt: found the ending '\.txt', expected \.npy or \.parquet"),
    (["TEXT", "--output-file", "out.npy", "--batch-size", "0"], "--batch-size: found 0, expected a number above 0"),
    (["TEXT", "--output-file", "out.npy", "--max-seq-length", "17"], "max_seq_length: found 17, expected 2 to 16"),
    (["TEXT", "--output-file", "out.npy", "--max-seq-length", "-1"], "max_seq_length: found -1, expected 2 to 16"),
    (["missing.txt", "--output-file", "out.npy"], "missing.txt: cannot be read"),
    (["TEXT", "--output-file", "out.npy", "--layers", "third"], "third"),
])  # fmt: skip
def test_mistakes_are_named_and_leave_no_file(model, text, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run([str(model), *(str(text) if word == "TEXT" else word for word in words)])
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def started(folder, out, errors=None):
    script = "import sys; from bertjax.cli.embed import run; sys.exit(run(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        script,
        str(folder),
        "-",
        "--output-file",
        str(out),
        "--batch-size",
        "8",
    ]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=dict(os.environ),
    )


def test_standard_input_is_read_and_a_kill_leaves_no_file_of_that_name(model, tmp_path):
    folder = model
    out = epath.Path(tmp_path) / "out.npy"
    process = started(folder, out)
    process.stdin.write("the cat.\n" * 1200)  # two windows of 64 batches of 8, and more to come
    process.stdin.flush()

    def is_written():
        return any(path.stat().st_size > 1000 for path in tmp_path.glob("out.npy.*unfinished"))

    until(is_written, process=process)
    assert not out.exists()
    second = started(folder, out, subprocess.PIPE).communicate("\n".join(LINES))
    assert f"out.npy: found bertjax embed (process {process.pid} on " in second[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()

    # The same command makes it, and removes what is left.
    printed = started(folder, out)
    answer = printed.communicate("\n".join(LINES))[0]
    assert "lines: 4" in answer
    np.testing.assert_allclose(np.load(out), features.embed(folder, LINES), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
