import dataclasses
import resource
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.interop.programs.onnx import export_onnx
from tests.interop.exported_programs import (
    MODELS,
    SHAPES,
    all_outputs,
    assert_same,
    expected,
    random_inputs,
    random_params,
)

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def session(folder):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options)


def run(runtime, inputs):
    names = [output.name for output in runtime.get_outputs()]
    return dict(zip(names, runtime.run(names, inputs), strict=True))


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Every kind of model, exported and loaded."""
    found = {}
    for name, config in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        params = random_params(config)
        export_onnx(config, params, folder, all_outputs(config))
        found[name] = (config, params, folder, session(folder))
    return found


@given(st.sampled_from(sorted(MODELS)), st.sampled_from(SHAPES), st.integers(0, 99))
def test_onnxruntime_computes_the_same(programs, name, shape, seed):
    config, params, _, runtime = programs[name]
    inputs = random_inputs(config, *shape, seed)
    assert_same(run(runtime, inputs), expected(config, params, inputs))


@pytest.mark.parametrize("name", MODELS)
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


@pytest.mark.parametrize("name", MODELS)
def test_rows_longer_than_the_positions_are_refused(programs, name):
    config, _, _, runtime = programs[name]
    run(runtime, random_inputs(config, 2, config.max_length))
    with pytest.raises(Exception, match=r"\[ONNXRuntimeError\]"):
        run(runtime, random_inputs(config, 2, config.max_length + 1))


def test_shared_layers_are_stored_once(programs):
    _, _, folder, _ = programs["albert"]
    names = [tensor.name for tensor in onnx.load(folder / "model.onnx").graph.initializer]
    assert sum("mlp/up/kernel" in name for name in names) == 1


def test_large_weights_go_to_a_file_beside_the_graph(tmp_path):
    config, params = MODELS["bert"], random_params(MODELS["bert"])
    export_onnx(config, params, tmp_path, all_outputs(config), max_file_bytes=20_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    inputs = random_inputs(config, 3, 8)
    assert_same(run(session(tmp_path), inputs), expected(config, params, inputs))
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(Exception, match="model.onnx.data"):
        session(tmp_path)


def test_a_bfloat16_model_computes_in_float32(tmp_path):
    config = MODELS["bert"]
    params = random_params(config)
    export_onnx(
        dataclasses.replace(config, dtype="bfloat16"), params, tmp_path, all_outputs(config)
    )
    inputs = random_inputs(config, 2, 8)
    assert_same(run(session(tmp_path), inputs), expected(config, params, inputs))


def test_a_disk_that_refuses_leaves_no_program(tmp_path):
    params = random_params(MODELS["bert"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        for limit, file in ((1 << 30, "model.onnx"), (0, "model.onnx.data")):
            with pytest.raises(UserError, match=f"{file}: cannot be written"):
                export_onnx(MODELS["bert"], params, tmp_path, max_file_bytes=limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        UserError, match=r"needs the package onnx, which is not installed \(bertjax\[onnx\]\)"
    ):
        export_onnx(MODELS["bert"], random_params(MODELS["bert"]), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_large_mean_costs_the_layer_norm_few_digits(tmp_path):
    """Runtimes may take the variance in one pass, which loses digits where the mean is large beside
    the deviation.
    """
    config, params = MODELS["bert"], random_params(MODELS["bert"])
    params["embeddings"]["token_type"]["embedding"] = (
        params["embeddings"]["token_type"]["embedding"] + 30.0
    )
    export_onnx(config, params, tmp_path)
    inputs = random_inputs(config, 2, 8)
    wanted = expected(config, params, inputs)
    found = run(session(tmp_path), inputs)
    assert_same(found, {name: wanted[name] for name in found}, atol=1e-3)
    assert np.abs(wanted["hidden"]).max() > 0.5
