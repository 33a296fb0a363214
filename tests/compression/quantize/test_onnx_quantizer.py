"""Integers and their scales."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import bertjax
from bertjax.compression.quantize.graph_weights import (
    check_types,
    quantizable_weights,
    read_graph,
)
from bertjax.compression.quantize.onnx_quantizer import quantize_file, symmetric_integers
from bertjax.compression.quantize.options import QuantizeOptions
from bertjax.errors import UserError
from tests.compression.small_runs import encoder_run
from tests.interop.exported_programs import files_of_at_most


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported")
    return Path(bertjax.export_model(encoder_run(folder), folder / "out", "onnx"))


MATRIX = arrays.arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32))


@given(MATRIX, st.sampled_from([0, 1, None]), st.sampled_from([4, 8]))
def test_no_weight_moves_by_more_than_half_a_step(matrix, axis, bits):
    integers, scales = symmetric_integers(matrix, axis, bits)
    assert integers.dtype == np.int8
    along = scales if axis is None else np.expand_dims(scales, axis)
    assert np.all(np.abs(integers * along - matrix) <= along * 0.5001 + 1e-30)
    assert np.all(np.abs(integers) <= (127 if bits == 8 else 7))


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_matrices_of_four_bits_are_half_a_byte_each_and_tables_stay_whole_bytes(
    exported, tmp_path, granularity
):
    import onnx
    from onnx import numpy_helper

    source, target = exported / "model.onnx", tmp_path / "model.onnx"
    weights = quantizable_weights(read_graph(source))
    options = QuantizeOptions(bits=4, activations="none", granularity=granularity)
    quantize_file(source, target, options, weights)
    types = check_types(target, weights, (), bits=4)
    numbers = dict.fromkeys((True, False), 0)
    for weight in weights:
        numbers[weight.is_table] += weight.bytes // 4
    assert types["int4"] == numbers[False] // 2
    assert 0 <= types["uint8"] - numbers[True] < 100
    assert target.stat().st_size < source.stat().st_size / 2
    with pytest.raises(UserError, match="found int4, expected int8"):
        check_types(target, weights, ())

    # With matrices alone the file computes what the rounded matrices give.
    matrices = [weight for weight in weights if not weight.is_table]
    quantize_file(source, tmp_path / "matrices.onnx", options, matrices)
    rounded = onnx.load(str(source))
    for tensor in rounded.graph.initializer:
        if tensor.name in {weight.name for weight in matrices}:
            axis = 0 if granularity == "channel" else None
            integers, scales = symmetric_integers(numpy_helper.to_array(tensor), axis, 4)
            tensor.CopyFrom(numpy_helper.from_array(integers * scales, tensor.name))
    onnx.save(rounded, str(tmp_path / "rounded.onnx"))
    found, expected = (hidden_states(tmp_path / name) for name in ("matrices.onnx", "rounded.onnx"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(expected - hidden_states(source)).max() > 1e-3


def hidden_states(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # By default (4) the inputs of products with 4 bits are rounded to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(str(path), options)
    ids = np.arange(14, dtype=np.int32).reshape(2, 7) % 9
    inputs = {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": 0 * ids}
    return session.run(["hidden"], inputs)[0]


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
