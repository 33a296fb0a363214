import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config.families import FAMILIES
from bertjax.errors import UserError
from bertjax.interop.programs.onnx.export import export_onnx
from tests.interop.exported_programs import (
    COMPOSED,
    LONG,
    MODELS,
    SHAPES,
    all_outputs,
    assert_computed,
    assert_same,
    composed_models,
    expected,
    files_of_at_most,
    onnx_session,
    random_inputs,
    random_params,
    serve_onnx,
    served,
    small_family,
)

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Every kind of model, exported and loaded."""
    loaded = {}
    for name, config in {**MODELS, **COMPOSED}.items():
        folder = tmp_path_factory.mktemp(name)
        params = random_params(config)
        export_onnx(served(config, params), folder)
        loaded[name] = (config, params, folder, onnx_session(folder))
    return loaded


@given(st.sampled_from(sorted(MODELS)), st.sampled_from(SHAPES), st.integers(0, 99))
def test_onnxruntime_computes_the_same(programs, name, shape, seed):
    config, params, _, runtime = programs[name]
    inputs = random_inputs(config, *shape, seed)
    assert_same(serve_onnx(runtime, inputs), expected(config, params, inputs))


@pytest.mark.parametrize("name", COMPOSED)
def test_onnxruntime_computes_every_composition(programs, name):
    config, params, _, runtime = programs[name]
    inputs = random_inputs(config, 5, config.max_length)
    outputs = serve_onnx(runtime, inputs)
    assert_computed(outputs, config, params, inputs)
    for row, real in enumerate(inputs["input_mask"].sum(axis=1)):
        if real:
            alone = serve_onnx(runtime, {key: x[row : row + 1, :real] for key, x in inputs.items()})
            for key, value in alone.items():
                there = outputs[key][row]
                there = there[:real] if there.ndim == 2 else there
                np.testing.assert_allclose(value[0], there, atol=1e-5, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_onnxruntime_computes_every_family(tmp_path, name):
    config = small_family(name)
    params = random_params(config)
    export_onnx(served(config, params), tmp_path)
    runtime = onnx_session(tmp_path)
    for seed, shape in enumerate([(3, 5), (4, 16)]):
        inputs = random_inputs(config, *shape, seed)
        assert_computed(serve_onnx(runtime, inputs), config, params, inputs)


@pytest.mark.slow
def test_rows_of_many_windows_are_computed_the_same(tmp_path):
    params = random_params(LONG)
    export_onnx(served(LONG, params, ["hidden"]), tmp_path)
    inputs = random_inputs(LONG, 2, 1500)
    outputs = serve_onnx(onnx_session(tmp_path), inputs)
    here = {"hidden": expected(LONG, params, inputs)["hidden"]}
    assert_same(outputs, here, atol=1e-4, mask=inputs["input_mask"])


@pytest.mark.slow
@settings(max_examples=40)
@given(composed_models())
def test_onnxruntime_computes_drawn_compositions(config):
    params = random_params(config)
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(served(config, params), folder)
        runtime = onnx_session(Path(folder))
        inputs = random_inputs(config, 3, 11)
        assert_computed(serve_onnx(runtime, inputs), config, params, inputs)


@pytest.mark.parametrize("name", [*MODELS, *COMPOSED])
def test_the_checker_of_onnx_finds_each_graph_and_its_shapes_good(programs, name):
    config, _, folder, _ = programs[name]
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    model = onnx.load(folder / "model.onnx")
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert [(p.key, p.value) for p in model.metadata_props] == [
        ("max_length", str(config.max_length))
    ]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert len(inferred.graph.output) == len(all_outputs(config))


@pytest.mark.parametrize("name", [*MODELS, *COMPOSED])
def test_rows_longer_than_the_positions_are_refused(programs, name):
    config, _, _, runtime = programs[name]
    serve_onnx(runtime, random_inputs(config, 2, config.max_length))
    with pytest.raises(Exception, match=r"\[ONNXRuntimeError\]"):
        serve_onnx(runtime, random_inputs(config, 2, config.max_length + 1))


def test_shared_layers_are_stored_once(programs):
    _, _, folder, _ = programs["albert"]
    names = [tensor.name for tensor in onnx.load(folder / "model.onnx").graph.initializer]
    assert sum("mlp/up/kernel" in name for name in names) == 1


def test_int8_weights_replace_every_stored_matrix_and_change_little(programs, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    config, _, folder, runtime = programs["rotary"]
    quantization.quantize_dynamic(folder / "model.onnx", tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    stored = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("MatMul", "MatMulInteger")]
    left = [node.name for node in products if node.op_type == "MatMul" and stored & {*node.input}]
    # Four of attention and three of the gated feed-forward sublayer, the pooler and the logits.
    assert len(products) - len([node for node in products if node.op_type == "MatMul"]) == 16
    assert not left
    inputs = random_inputs(config, 5, 14)
    exact, rounded = serve_onnx(runtime, inputs), serve_onnx(onnx_session(tmp_path), inputs)
    for name, value in exact.items():
        similarity = np.corrcoef(value.ravel(), rounded[name].ravel())[0, 1]
        assert similarity > 0.98, (name, similarity)


def test_large_weights_go_to_a_file_beside_the_graph(tmp_path):
    config, params = MODELS["bert"], random_params(MODELS["bert"])
    export_onnx(served(config, params), tmp_path, max_file_bytes=20_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    inputs = random_inputs(config, 3, 8)
    assert_same(serve_onnx(onnx_session(tmp_path), inputs), expected(config, params, inputs))
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(Exception, match="model.onnx.data"):
        onnx_session(tmp_path)


def test_a_bfloat16_model_computes_in_float32(tmp_path):
    config = MODELS["bert"]
    params = random_params(config)
    export_onnx(served(dataclasses.replace(config, dtype="bfloat16"), params), tmp_path)
    inputs = random_inputs(config, 2, 8)
    assert_same(serve_onnx(onnx_session(tmp_path), inputs), expected(config, params, inputs))


def test_a_disk_that_refuses_leaves_no_program(tmp_path):
    model = served(MODELS["bert"], random_params(MODELS["bert"]))
    with files_of_at_most(10_000):
        for limit, file in ((1 << 30, "model.onnx"), (0, "model.onnx.data")):
            with pytest.raises(UserError, match=f"{file}: cannot be written"):
                export_onnx(model, tmp_path, max_file_bytes=limit)
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_the_graph_does_not_know_are_refused(tmp_path):
    model = served(MODELS["bert"], random_params(MODELS["bert"]))
    strange = dataclasses.replace(model, params={**model.params, "mlm/second/bias": np.ones(3)})
    with pytest.raises(
        UserError,
        match="format onnx: found parameters mlm/second/bias, expected a model without them",
    ):
        export_onnx(strange, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    model = served(MODELS["bert"], random_params(MODELS["bert"]))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        UserError, match=r"onnx: found no such package, expected .* pip install 'bertjax\[onnx\]'"
    ):
        export_onnx(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_large_mean_costs_the_layer_norm_few_digits(tmp_path):
    """A variance in one pass, as of some runtimes, loses digits where the mean is large."""
    config, params = MODELS["bert"], random_params(MODELS["bert"])
    params["embeddings"]["token_type"]["embedding"] = (
        params["embeddings"]["token_type"]["embedding"] + 30.0
    )
    export_onnx(served(config, params, ["hidden", "pooled"]), tmp_path)
    inputs = random_inputs(config, 2, 8)
    here = expected(config, params, inputs)
    outputs = serve_onnx(onnx_session(tmp_path), inputs)
    assert_same(outputs, {name: here[name] for name in ("hidden", "pooled")}, atol=1e-3)
    assert np.abs(here["hidden"]).max() > 0.5


@pytest.mark.parametrize("length", [1, 2, 9])
def test_logits_of_shifted_predictions_are_those_of_the_state_before(tmp_path, length):
    config = dataclasses.replace(MODELS["bert"], mlm_shifted=True)
    params, inputs = random_params(config), random_inputs(config, 2, length)
    export_onnx(served(config, params, ("mlm_logits",)), tmp_path)
    shifted = serve_onnx(onnx_session(tmp_path), inputs)["mlm_logits"]
    own = expected(MODELS["bert"], params, inputs)["mlm_logits"]
    first = np.maximum(np.arange(length) - 1, 0)
    np.testing.assert_allclose(shifted, own[:, first], atol=1e-5)
