import os
from pathlib import Path

import pytest

from bertjax.config.families import FAMILIES
from bertjax.errors import UserError
from bertjax.interop.programs.saved_model import export_saved_model
from tests.interop.exported_programs import (
    COMPOSED,
    MODELS,
    SHAPES,
    all_outputs,
    assert_computed,
    assert_same,
    expected,
    files_of_at_most,
    random_inputs,
    random_params,
    serve_saved_model,
    served,
    small_family,
)

tf = pytest.importorskip("tensorflow")


QUICK = ("bert", "albert")


@pytest.fixture(
    scope="module",
    params=[m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in MODELS],
)
def program(request, tmp_path_factory):
    config, params = MODELS[request.param], random_params(MODELS[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    export_saved_model(served(config, params), folder)
    return config, params, folder, tf.saved_model.load(str(folder))


def test_tensorflow_computes_the_same_for_any_batch_and_length(program):
    config, params, _, loaded = program
    for seed, shape in enumerate(SHAPES):
        inputs = random_inputs(config, *shape, seed)
        assert_same(serve_saved_model(loaded, inputs), expected(config, params, inputs))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMPOSED, *FAMILIES])
def test_compositions_and_families_compute_the_same_for_any_length(tmp_path, name):
    config = COMPOSED[name] if name in COMPOSED else small_family(name)
    params = random_params(config)
    export_saved_model(served(config, params), tmp_path)
    loaded = tf.saved_model.load(str(tmp_path))
    for seed, shape in enumerate([(3, 5), (4, 14)]):
        inputs = random_inputs(config, *shape, seed)
        assert_computed(serve_saved_model(loaded, inputs), config, params, inputs)


def test_rows_longer_than_the_positions_are_refused(program):
    config, _, _, loaded = program
    serve_saved_model(loaded, random_inputs(config, 2, config.max_length))
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"l <= {config.max_length}"):
        serve_saved_model(loaded, random_inputs(config, 2, config.max_length + 1))


def test_the_signature_has_free_axes_and_named_tensors(program):
    config, _, folder, loaded = program
    signature = loaded.signatures["serving_default"]
    inputs = signature.structured_input_signature[1]
    assert set(inputs) == {"input_ids", "input_mask", "segment_ids"}
    assert all(
        spec.dtype == tf.int32 and spec.shape.as_list() == [None, None] for spec in inputs.values()
    )
    shapes = {name: spec.shape.as_list() for name, spec in signature.structured_outputs.items()}
    widths = {
        "hidden": [None, None, 16],
        "pooled": [None, 16],
        "mlm_logits": [None, None, 64],
        "nsp_logits": [None, 2],
    }
    assert shapes == {name: widths[name] for name in all_outputs(config)}
    program = (folder / "saved_model.pb").read_bytes()
    assert b"StableHLO_v1.0.0" in program
    assert os.fsencode(Path(__file__).resolve().parents[3]) not in program


def test_a_disk_that_refuses_leaves_no_program(tmp_path):
    model = served(MODELS["bert"], random_params(MODELS["bert"]), ["hidden", "pooled"])
    with files_of_at_most(10_000), pytest.raises(UserError, match="cannot be written"):
        export_saved_model(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
    export_saved_model(model, tmp_path)
    with pytest.raises(UserError, match="saved_model.pb: found a file"):
        export_saved_model(model, tmp_path)
