import dataclasses
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from bertjax.config import TokenizerConfig
from bertjax.data.preparation.beam import beam_runner
from bertjax.data.preparation.prepare import prepare
from bertjax.data.preparation.runners import WorkItem
from bertjax.data.records.manifest import read_manifest
from bertjax.errors import UserError
from bertjax.progress import silent
from tests.data.preparation.corpora import config_of as small_preparation

pytest.importorskip("apache_beam")

ROOT = Path(__file__).resolve().parents[3]
HERE = ("--runner=DirectRunner", "--direct_running_mode=in_memory")
PROCESSES = (
    "--runner=DirectRunner",
    "--direct_running_mode=multi_processing",
    "--direct_num_workers=2",
)


def config_of(corpus, vocabulary=""):
    tokenizer = TokenizerConfig(vocab_file=vocabulary, vocab_size=400)
    return dataclasses.replace(small_preparation(corpus, dupe_factor=2), tokenizer=tokenizer)


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("options", [HERE, PROCESSES], ids=["one process", "two processes"])
def test_beams_workers_give_the_same_bytes_as_a_local_preparation(corpus, tmp_path, options):
    prepare(config_of(corpus), tmp_path / "local")
    local = files_of(tmp_path / "local")
    assert len([name for name in local if name.endswith(".tfrecord")]) == 4
    del local["manifest.json"]  # it names the vocabulary's file
    vocabulary = "" if options is HERE else str(tmp_path / "local" / "tokenizer" / "vocab.txt")
    prepare(config_of(corpus, vocabulary), tmp_path / "beam", runner=beam_runner(options))
    by_beam = files_of(tmp_path / "beam")
    assert by_beam.pop("manifest.json")
    assert by_beam == local


def test_the_tasks_run_outside_of_this_process(tmp_path):
    # A function of the standard library, which every worker can import.
    commands = [["sh", "-c", f"echo $PPID > {tmp_path}/{n}"] for n in range(4)]
    items = [WorkItem(subprocess.check_call, (command,)) for command in commands]
    calls = []
    with beam_runner(PROCESSES) as run:
        run("some", items, lambda *progress: calls.append(progress))
    processes = {int((tmp_path / str(n)).read_text()) for n in range(4)}
    assert os.getpid() not in processes
    assert calls == [("some", 0, 4), ("some", 4, 4)]


@pytest.mark.parametrize("options", [HERE, PROCESSES], ids=["one process", "two processes"])
def test_a_bad_file_is_named_from_a_worker_of_beams(corpus, tmp_path, options):
    (corpus / "b.txt").write_bytes(b"good\nbad \xff\n")
    with pytest.raises(UserError) as raised:
        prepare(config_of(corpus), tmp_path / "out", runner=beam_runner(options))
    assert str(raised.value) == (
        f"{corpus / 'b.txt'}, line 2: found the byte 0xff, which is not UTF-8, "
        "expected UTF-8 (or data.encoding_errors replace)"
    )


def test_a_fault_that_is_no_users_stays_what_beam_makes_of_it(tmp_path):
    with beam_runner(HERE) as run, pytest.raises(Exception, match="No such file") as raised:
        run("some", [WorkItem(os.stat, (str(tmp_path / "missing"),))], silent)
    assert not isinstance(raised.value, UserError)


@pytest.mark.slow
def test_the_command_line_prepares_by_beam(corpus, tmp_path):
    tiny = runpy.run_path(str(ROOT / "configs" / "tiny.py"))["get_config"]()
    data = dataclasses.replace(tiny.data, corpus=(str(corpus),), dupe_factor=2, workers=1)
    tokenizer = dataclasses.replace(tiny.tokenizer, vocab_size=400)
    expected = prepare(
        dataclasses.replace(tiny, data=data, tokenizer=tokenizer), tmp_path / "local"
    )
    command = [
        sys.executable, "-m", "bertjax.cli.main", "prepare", "configs/tiny.py", "--output-dir", str(tmp_path / "beam"),
        "--data.corpus", str(corpus), "--data.dupe-factor", "2", "--tokenizer.vocab-size", "400",
        "--runner", "beam", "--", *HERE,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_manifest(epath.Path(tmp_path / "beam")) == expected
