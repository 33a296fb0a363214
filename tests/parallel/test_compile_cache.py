"""Compiled programs are kept and found, whatever a kill left behind."""

import logging
import os
import subprocess
import sys

import jax
import pytest
from etils import epath

from bertjax.parallel import compile_cache
from tests.multihost.processes import start

PROGRAM = """
import jax, jax.numpy as jnp
from jax._src import monitoring
from bertjax.parallel import compile_cache
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
print(compile_cache.start())
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8)))
print(len(hits))
"""


@pytest.fixture
def cache_option():
    """JAX's own option, put back after the test."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def run_program(home, **variables):
    """The folder, and how many programs were found there."""
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(home),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    del environment["JAX_COMPILATION_CACHE_DIR"]
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, env=environment | variables, capture_output=True, text=True, check=True
    )
    folder, hits = done.stdout.split()
    return folder, int(hits)


def test_a_second_process_finds_what_the_first_compiled_and_mends_what_a_kill_cut_short(tmp_path):
    folder, hits = run_program(tmp_path, NPROC="3")
    assert folder == str(tmp_path / "bertjax" / "compiled" / "3-cores")
    assert hits == 0
    assert os.stat(folder).st_mode & 0o077 == 0
    again, hits = run_program(tmp_path, NPROC="3")
    assert again == folder
    assert hits > 0
    assert run_program(tmp_path, NPROC="2")[1] == 0  # cut for other cores

    newest = max(epath.Path(folder).glob("*-cache"), key=lambda path: path.stat().mtime)
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2])
    assert run_program(tmp_path, NPROC="3")[1] == hits - 1
    assert run_program(tmp_path, NPROC="3")[1] == hits


def test_of_several_processes_the_first_keeps_what_it_compiles_in_their_runs_folder_and_finds_it(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    folder = tmp_path / "run" / "compiled" / "16-cores"

    def found_by_the_first(name):
        always = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        job = start(tmp_path / name, ["tests.multihost.compiled", tmp_path / "run"], 2, **always)
        assert job.wait() == [0, 0], job.said(0) + job.last_lines(1)
        last_lines = [job.said(index).splitlines()[-1].split() for index in range(2)]
        assert {(where, total) for where, _, total in last_lines} == {(str(folder), "28.0")}
        return int(last_lines[0][1])

    assert found_by_the_first("start") == 0
    assert found_by_the_first("restart") == len(list(folder.glob("*-cache"))) > 0


@pytest.mark.parametrize("variable", [{"JAX_COMPILATION_CACHE_DIR": "elsewhere"}, {}])
def test_what_the_user_says_of_the_cache_stands(variable, tmp_path, cache_option):
    jax.config.update("jax_enable_compilation_cache", bool(variable))
    try:
        before = jax.config.jax_compilation_cache_dir
        assert compile_cache.start(None, {"XDG_CACHE_HOME": str(tmp_path), **variable}) is None
        assert jax.config.jax_compilation_cache_dir == before
        assert not list(tmp_path.iterdir())
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def test_the_oldest_programs_go_when_there_are_too_many(tmp_path, monkeypatch, cache_option):
    monkeypatch.setattr(compile_cache, "KEPT_BYTES", 250)
    folder = tmp_path / "bertjax" / "compiled" / "4-cores"
    folder.mkdir(parents=True)
    packed = compile_cache.compilation_cache.compress_executable(bytes(100))
    for age, name in enumerate(["new", "middle", "old"]):
        path = folder / f"{name}-cache"
        path.write_bytes(packed + bytes(100 - len(packed)))
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    assert compile_cache.start(None, {"XDG_CACHE_HOME": str(tmp_path), "NPROC": "4"}) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["middle-cache", "new-cache"]


def test_a_folder_that_cannot_be_made_is_said_and_nothing_more(tmp_path, caplog, cache_option):
    (tmp_path / "bertjax").write_text("a file")
    before = jax.config.jax_compilation_cache_dir
    with caplog.at_level(logging.WARNING):
        assert compile_cache.start(None, {"XDG_CACHE_HOME": str(tmp_path)}) is None
    assert "compiled programs are not kept" in caplog.text
    assert jax.config.jax_compilation_cache_dir == before
