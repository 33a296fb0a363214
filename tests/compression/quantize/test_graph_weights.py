"""Which weights of a graph can be quantized, and what a file holds."""

from pathlib import Path

import numpy as np
import pytest

import bertjax
from bertjax.compression.quantize.graph_weights import (
    bytes_by_type,
    check_types,
    quantizable_weights,
    read_graph,
    stored_bytes,
    untie,
)
from bertjax.errors import UserError
from tests.compression.small_runs import encoder_run
from tests.interop.exported_programs import onnx_session, serve_onnx

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model with a tied head for masked words, whose graph transposes the table of words."""
    folder = tmp_path_factory.mktemp("graph")
    run = encoder_run(folder, heads=("pooler", "mlm"))
    return Path(bertjax.export_model(run, folder / "out", "onnx", outputs=("mlm_logits",)))


def test_matrices_and_tables_are_found_and_a_table_that_is_transposed_is_not(exported, tmp_path):
    names = {
        weight.name: weight for weight in quantizable_weights(read_graph(exported / "model.onnx"))
    }
    assert "encoder/layers/1/mlp/up/kernel" in names
    assert names["embeddings/position/embedding"].is_table
    assert names["encoder/layers/0/attention/query/kernel"].shape == (32, 32)
    assert names["encoder/layers/0/attention/query/kernel"].bytes == 4096
    assert "embeddings/word/embedding" not in names
    (tmp_path / "new").mkdir()
    assert untie(exported / "model.onnx", tmp_path / "new" / "model.onnx")
    untied = {w.name: w for w in quantizable_weights(read_graph(tmp_path / "new" / "model.onnx"))}
    new = untied.keys() - names.keys()
    assert "embeddings/word/embedding" in new
    assert len(new) == 2
    assert {untied[name].is_table for name in new} == {True, False}
    inputs = {
        name: np.ones((2, 5), np.int32) for name in ("input_ids", "input_mask", "segment_ids")
    }
    before = serve_onnx(onnx_session(exported), inputs)["mlm_logits"]
    after = serve_onnx(onnx_session(tmp_path / "new"), inputs)["mlm_logits"]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)
    assert not untie(tmp_path / "new" / "model.onnx", tmp_path / "again.onnx")


def test_a_file_that_says_int8_and_holds_float32_is_refused(exported):
    path = exported / "model.onnx"
    weights = quantizable_weights(read_graph(path))
    with pytest.raises(UserError, match=r"model.onnx: .*: found float32, expected int8"):
        check_types(path, weights, ())
    types = check_types(path, weights, [weight.name for weight in weights])
    assert types == bytes_by_type(read_graph(path))
    assert next(iter(types)) == "float32"
    assert types["float32"] < stored_bytes(exported) < 2 * types["float32"]
