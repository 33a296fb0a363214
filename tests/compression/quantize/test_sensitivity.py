"""Errors of outputs, and how many weights are tried in float."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.compression.quantize.sensitivity import (
    MOST_ROWS,
    errors_of_weights,
    keep_counts,
    relative_error,
    some_rows,
)


@given(st.integers(0, 1000))
def test_few_counts_are_tried_and_the_last_is_the_most(most):
    counts = keep_counts(most)
    assert len(counts) <= 11
    assert counts == sorted(set(counts))
    assert counts[-1:] == ([most] if most else [])


def test_errors_leave_padding_out_and_are_relative():
    rows = [{"input_ids": np.ones((1, 3)), "input_mask": np.array([[1, 1, 0]])}]
    exact = [np.array([[[3.0], [4.0], [9.0]]])]
    found = np.array([[[3.0], [4.5], [0.0]]])
    assert relative_error(exact, rows, lambda inputs: found) == pytest.approx(0.1)
    pooled = [np.array([[3.0, 4.0]])]
    assert relative_error(pooled, rows, lambda inputs: pooled[0]) == 0


def test_the_first_rows_are_taken():
    batches = ({"input_ids": np.full((20, 4), number)} for number in range(9))
    taken = some_rows(batches)
    assert [len(batch["input_ids"]) for batch in taken] == [20, MOST_ROWS - 20]


def test_each_weight_has_an_empty_folder_of_its_own(tmp_path):
    def error(folder, weight):
        assert not list(folder.iterdir())
        (folder / "model.onnx").write_bytes(b"x")
        return float(ord(weight))

    assert errors_of_weights(["a", "b"], error, tmp_path) == {"a": 97.0, "b": 98.0}
    assert not list(tmp_path.iterdir())
