"""The losses in `docs/reference_curve.md` against those of a fresh run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from bertjax.training.logs.metrics_log import read_entries

ROOT = Path(__file__).parents[1]
# In nats. CPython's documentation, and with it the corpus, differs a little between its versions.
TOLERANCE = 0.25


def documented():
    """Return the held-out masked-word losses of three seeds, by step."""
    lines = re.findall(
        r"^\| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$",
        (ROOT / "docs/reference_curve.md").read_text(),
        re.M,
    )
    return {int(step.replace(",", "")): [float(x) for x in losses] for step, *losses in lines}


def test_the_documented_curve_falls_well_below_the_unigram_entropy():
    curve = documented()
    assert list(curve) == [500, 1000, 1500, 2000, 2500, 3000]
    assert all(loss < 4.9 for loss in curve[3000])


@pytest.mark.slow
def test_a_fresh_run_follows_the_documented_curve(tmp_path):
    env = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}

    def bertjax(*arguments):
        command = [sys.executable, "-m", "bertjax.cli.main", *map(str, arguments)]
        subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)

    prepared = ["--data.prepared-dir", tmp_path / "prepared"]
    bertjax("prepare", "tiny", *prepared)
    bertjax("train", "tiny", *prepared, "--run-dir", tmp_path / "run")
    heldout = {
        r["step"]: r
        for r in read_entries(epath.Path(tmp_path) / "run")
        if r["split"] == "validation"
    }
    for step, losses in documented().items():
        low, high = min(losses) - TOLERANCE, max(losses) + TOLERANCE
        assert low < heldout[step]["mlm_loss"] < high, step
    assert heldout[3000]["mlm_loss"] < heldout[3000]["unigram_entropy"] - 0.8
