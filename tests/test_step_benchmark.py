"""The programs whose steps `benchmarks/step.py` times: each runs, and its first loss is plausible."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = Path(__file__).parents[1] / "benchmarks" / "steps"
FAMILIES = ("bert", "modernbert", "deberta-v2", "neobert")


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A function that returns the job of a family's smallest step."""
    monkeypatch.syspath_prepend(STEPS)
    from jobs import job_of

    def make(family):
        job = job_of(family, "mini", 32, 2, "float32", tmp_path / "batch.npz")
        return {**job, "model": {**job["model"], "num_hidden_layers": 1}, "options": {}}

    return make


def answers(program, job):
    """Return what a program says of its first step, and of the two that it is then asked for."""
    words = [sys.executable, STEPS / program, json.dumps(job)]
    # One device, not the eight of the tests.
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    run = subprocess.run(words, input="2\n", capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_both_programs_begin_at_the_loss_of_a_guess(job, family):
    # Two rows, so one right guess of the next sentence is a third of a nat.
    guess = math.log(30_522) + (math.log(2) if family == "bert" else 0.0)
    peer = {"compiled": False}
    for program, more in (("bertjax_step.py", {}), ("pytorch_step.py", peer)):
        first, timed, peak = answers(program, {**job(family), **more})
        assert first["loss"] == pytest.approx(guess, abs=1.0)
        assert timed["step_s"] > 0
        assert peak["peak_bytes"] > 0


@pytest.mark.slow
def test_the_step_in_its_loop_is_timed(job):
    assert answers("bertjax_step.py", {**job("bert"), "kind": "loop"})[1]["step_s"] > 0
