import json

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.report import curves
from bertjax.report.curves import MAX_POINTS, Curve, read_metrics


def curve_of(values):
    return Curve(np.arange(1.0, len(values) + 1), np.asarray(values, float))


def write_entries(folder, entries, torn=""):
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(entry) + "\n" for entry in entries) + torn
    )
    return epath.Path(folder)


@given(size=st.integers(1, 30_000), seed=st.integers(0, 99))
def test_a_thinned_curve_is_short_and_keeps_both_ends_and_the_extremes(size, seed):
    curve = curve_of(np.random.default_rng(seed).normal(size=size))
    thin = curve.thinned()
    assert len(thin.steps) <= MAX_POINTS
    assert (np.diff(thin.steps) > 0).all()
    assert (thin.steps[0], thin.steps[-1]) == (1, size)
    assert (thin.values.min(), thin.values.max()) == (curve.values.min(), curve.values.max())
    np.testing.assert_array_equal(thin.values, curve.values[thin.steps.astype(int) - 1])


@given(size=st.integers(1, 30_000))
def test_smoothing_does_not_lag_behind_a_straight_line(size):
    line = curve_of(3.0 * np.arange(size))
    smooth = line.smoothed()
    assert len(smooth.steps) <= MAX_POINTS
    inner = smooth.steps < size - size // 100
    np.testing.assert_allclose(smooth.values[inner], 3.0 * (smooth.steps[inner] - 1), atol=1e-6)


def test_smoothing_leaves_out_what_is_not_known():
    curve = curve_of(np.ones(1000))
    curve.values[400:410] = np.nan
    assert (curve.smoothed().values == 1).all()
    assert np.isnan(curve_of([np.nan]).smoothed().values).all()
    assert len(curve_of([]).smoothed().steps) == 0


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
def test_entries_are_read_whole_whatever_the_block(tmp_path, monkeypatch, block):
    monkeypatch.setattr(curves, "BLOCK_BYTES", block)
    entries = [
        {"step": 1, "split": "train", "mlm_loss": 5.5, "skipped": 0, "other": "x"},
        {"step": 2, "split": "train", "mlm_loss": None, "skipped": 1},
        {"step": 2, "split": "validation", "mlm_loss": 5.0, "unigram_entropy": None},
        {"step": 3, "split": "train", "mlm_loss": 4, "skipped": 1.0, "tokens_per_second": 10.0},
    ]
    metrics = read_metrics(write_entries(tmp_path, entries, torn='{"step": 4, "sp'))
    assert (metrics.last_step, metrics.skipped) == (3, 2)
    np.testing.assert_array_equal(metrics.training("mlm_loss").values, [5.5, np.nan, 4.0])
    assert metrics.training("tokens_per_second").finite().steps.tolist() == [3]
    assert (metrics.latest("mlm_loss"), metrics.latest("unigram_entropy")) == (5.0, None)


def test_the_best_evaluation_is_the_lowest_known_loss(tmp_path):
    losses = [3.0, None, 2.5, 2.75]
    entries = [
        {"step": 10 * n, "split": "validation", "mlm_loss": loss}
        for n, loss in enumerate(losses, 1)
    ]
    assert read_metrics(write_entries(tmp_path, entries)).lowest("mlm_loss") == (30, 2.5)
    assert read_metrics(write_entries(tmp_path, entries)).highest("mlm_loss") == (10, 3.0)
    assert read_metrics(write_entries(tmp_path, entries[1:2])).lowest("mlm_loss") is None
    assert read_metrics(epath.Path(tmp_path / "nothing")).last_step == 0


@pytest.mark.parametrize("line,message", [
    ("{", "metrics.jsonl: line 2: found"),
    ('{"step": "x", "split": "train"}', "metrics.jsonl: line 2: step: found 'x'"),
    ('{"step": 2, "split": "train", "mlm_loss": {}}', "metrics.jsonl: line 2: mlm_loss: found a dict"),
])  # fmt: skip
def test_a_line_that_no_run_writes_is_named(tmp_path, line, message):
    write_entries(tmp_path, [{"step": 1, "split": "train", "mlm_loss": 1.0}], f"{line}\n")
    with pytest.raises(UserError) as refused:
        read_metrics(epath.Path(tmp_path))
    assert message in str(refused.value)
