"""Integers and their scales."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import bertjax
from bertjax.compression.quantize.graph_weights import quantizable_weights, read_graph
from bertjax.compression.quantize.onnx_quantizer import quantize_file, symmetric_integers
from bertjax.compression.quantize.options import QuantizeOptions
from bertjax.errors import UserError
from tests.compression.small_runs import encoder_run
from tests.interop.exported_programs import files_of_at_most

MATRIX = arrays.arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32))


@given(MATRIX, st.sampled_from([0, 1, None]))
def test_no_weight_moves_by_more_than_half_a_step(matrix, axis):
    integers, scales = symmetric_integers(matrix, axis)
    assert integers.dtype == np.int8
    along = scales if axis is None else np.expand_dims(scales, axis)
    assert np.all(np.abs(integers * along - matrix) <= along * 0.5001 + 1e-30)
    assert np.all(np.abs(integers) <= 127)


def test_a_file_that_the_quantizer_refuses_is_one_line(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"model.onnx: found a graph that .* refuses \(.*\), exp"):
        quantize_file(tmp_path / "model.onnx", tmp_path / "new.onnx", QuantizeOptions(), [])


@pytest.mark.slow
@pytest.mark.parametrize("activations", ["none", "dynamic"])
def test_a_full_disk_is_one_line(tmp_path, activations):
    pytest.importorskip("onnxruntime")
    run = encoder_run(tmp_path)
    folder = Path(bertjax.export_model(run, tmp_path / "out", "onnx"))
    weights = quantizable_weights(read_graph(folder / "model.onnx"))
    target = tmp_path / "new.onnx"
    options = QuantizeOptions(activations=activations)
    with files_of_at_most(20_000), pytest.raises(UserError) as caught:
        quantize_file(folder / "model.onnx", target, options, weights)
    assert "\n" not in str(caught.value)
