import numpy as np
import pytest

from bertjax.interop.programs.onnx.export import export_onnx
from tests.interop.exported_programs import COMPOSED, random_inputs, random_params, served

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def run_with(folder, inputs, tensor):
    """The value of a tensor inside the graph."""
    model = onnx.load(folder / "model.onnx")
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run([tensor], inputs)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose first layer is local and whose second is global, with windows of 4."""
    config = COMPOSED["rotary"]
    folder = tmp_path_factory.mktemp("rotary")
    export_onnx(served(config, random_params(config)), folder)
    return folder


@pytest.mark.parametrize(("length", "blocks"), [(1, 1), (2, 1), (3, 2), (15, 8), (16, 8)])
def test_the_scores_of_a_local_layer_grow_linearly_with_the_row(folder, length, blocks):
    inputs = random_inputs(COMPOSED["rotary"], 3, length)
    scores = run_with(folder, inputs, "encoder/layers/0/attention/logits")
    assert scores.shape == (3, 4, blocks, 2, 6)
    scores = run_with(folder, inputs, "encoder/layers/1/attention/logits")
    assert scores.shape == (3, 4, length, length)


def test_a_query_sees_the_tokens_of_its_window_that_are_no_padding(folder):
    inputs = random_inputs(COMPOSED["rotary"], 1, 7)
    inputs["input_mask"] = np.array([[1, 1, 1, 1, 1, 0, 0]], np.int32)
    mask = run_with(folder, inputs, "windows/mask")[0, 0]
    seen = {}
    for block, query, place in np.argwhere(mask):
        # The first key of a block is that of the block before it.
        seen.setdefault(int(2 * block + query), []).append(int(2 * (block - 1) + place))
    assert seen[0] == [0, 1, 2]
    assert seen[3] == [1, 2, 3, 4]
    assert seen[6] == [4]
