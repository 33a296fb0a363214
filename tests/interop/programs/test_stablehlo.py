import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config.families import FAMILIES
from bertjax.errors import UserError
from bertjax.interop.programs.stablehlo import export_program, export_stablehlo
from tests.interop.exported_programs import (
    COMPOSED,
    LONG,
    MODELS,
    SHAPES,
    assert_computed,
    assert_same,
    expected,
    files_of_at_most,
    load_stablehlo,
    random_inputs,
    random_params,
    run_stablehlo,
    served,
    small_family,
)

LOADER = """
import sys
import jax
import numpy

folder, batches = sys.argv[1:]
exported = jax.export.deserialize(bytearray(open(f"{folder}/model.stablehlo", "rb").read()))
params = jax.device_put(dict(numpy.load(f"{folder}/params.npz")))
call = jax.jit(exported.call)
batch = numpy.load(batches)
for i in range(len(batch.files) // 3):
    outputs = call(params, *(batch[f"{i}/{name}"] for name in ("input_ids", "input_mask", "segment_ids")))
    numpy.savez(f"{folder}/{i}.npz", **outputs)
assert not {"bertjax", "flax", "tensorflow"} & set(sys.modules)
"""


def test_jax_alone_runs_it_for_any_batch_and_length(tmp_path):
    config, params = MODELS["bert"], random_params(MODELS["bert"])
    export_stablehlo(served(config, params), tmp_path)
    batches = [
        random_inputs(config, *shape, seed=i) for i, shape in enumerate([(1, 1), (2, 9), (3, 16)])
    ]
    np.savez(
        tmp_path / "in.npz",
        **{f"{i}/{name}": x for i, batch in enumerate(batches) for name, x in batch.items()},
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", LOADER, str(tmp_path), str(tmp_path / "in.npz")]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=300)
    for i, batch in enumerate(batches):
        assert_same(dict(np.load(tmp_path / f"{i}.npz")), expected(config, params, batch))


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Every kind of model, exported and loaded."""
    loaded = {}
    for name, config in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        params = random_params(config)
        export_stablehlo(served(config, params), folder)
        exported, flat = load_stablehlo(folder)
        loaded[name] = (config, params, folder, jax.jit(exported.call), flat)
    return loaded


@given(st.sampled_from(sorted(MODELS)), st.sampled_from(SHAPES), st.integers(0, 99))
def test_every_kind_of_model_computes_the_same(programs, name, shape, seed):
    config, params, _, call, loaded = programs[name]
    inputs = random_inputs(config, *shape, seed)
    assert_same(call(loaded, *inputs.values()), expected(config, params, inputs))


@pytest.mark.parametrize("name", ["relative", "rotary"])
def test_attention_that_reckons_with_the_length_is_exported_for_any_length(name):
    config = COMPOSED[name]
    exported = export_program(served(config, random_params(config), ["hidden"]))
    assert [str(aval.shape) for aval in exported.out_avals] == ["(b, l, 16)"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMPOSED, *FAMILIES])
def test_compositions_and_families_compute_the_same_for_any_length(tmp_path, name):
    config = COMPOSED[name] if name in COMPOSED else small_family(name)
    params = random_params(config)
    export_stablehlo(served(config, params), tmp_path)
    for seed, shape in enumerate([(3, 5), (4, 14)]):
        inputs = random_inputs(config, *shape, seed)
        assert_computed(run_stablehlo(tmp_path, inputs), config, params, inputs)
    with pytest.raises(ValueError, match="Error refining shapes|symbolic shape constraint"):
        run_stablehlo(tmp_path, random_inputs(config, 2, config.max_length + 1))


@pytest.mark.slow
def test_rows_of_many_windows_are_computed_the_same(tmp_path):
    params = random_params(LONG)
    export_stablehlo(served(LONG, params, ["hidden"]), tmp_path)
    inputs = random_inputs(LONG, 2, 1500)
    outputs = run_stablehlo(tmp_path, inputs)
    here = {"hidden": expected(LONG, params, inputs)["hidden"]}
    assert_same(outputs, here, atol=1e-4, mask=inputs["input_mask"])


@pytest.mark.parametrize("name", MODELS)
def test_rows_longer_than_the_positions_are_refused(programs, name):
    config, _, _, call, loaded = programs[name]
    call(loaded, *random_inputs(config, 2, config.max_length).values())
    with pytest.raises(ValueError, match="Error refining shapes|symbolic shape constraint"):
        call(loaded, *random_inputs(config, 2, config.max_length + 1).values())


def test_the_signature_says_what_goes_in_and_comes_out(programs):
    _, _, folder, _, loaded = programs["bert"]
    signature = json.loads((folder / "signature.json").read_text())
    exported, _ = load_stablehlo(folder)
    assert [entry["name"] for entry in signature["inputs"]] == [
        "input_ids",
        "input_mask",
        "segment_ids",
    ]
    shapes = {entry["name"]: entry["shape"] for entry in signature["outputs"]}
    avals = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    assert {name: [str(n) for n in shape] for name, shape in shapes.items()} == {
        name: [str(n) for n in aval.shape] for name, aval in avals.items()
    }
    assert {str(aval.dtype) for aval in avals.values()} == {
        entry["dtype"] for entry in signature["outputs"]
    }
    assert signature["max_length"] == 16
    assert tuple(signature["platforms"]) == exported.platforms == ("cpu", "cuda", "tpu")
    assert signature["versions"]["jax"] == jax.__version__
    assert set(loaded) == {path for path in loaded if "/" in path}


def test_the_program_holds_no_weights_and_no_path_of_this_machine(programs):
    _, _, folder, _, loaded = programs["bert"]
    program = (folder / "model.stablehlo").read_bytes()
    assert b"StableHLO_v1.0.0" in program
    assert os.fsencode(Path(__file__).resolve().parents[3]) not in program
    assert b"site-packages" not in program
    largest = max(loaded.values(), key=lambda array: array.nbytes)
    assert largest.tobytes()[:64] not in program


def test_a_bfloat16_model_computes_in_bfloat16_and_gives_float32(tmp_path):
    config = dataclasses.replace(MODELS["bert"], dtype="bfloat16")
    params = random_params(config)
    export_stablehlo(served(config, params, ["hidden", "pooled"]), tmp_path)
    exported, loaded = load_stablehlo(tmp_path)
    inputs = random_inputs(config, 2, 8)
    outputs = exported.call(loaded, *inputs.values())
    here = expected(config, params, inputs)
    assert_same(outputs, {name: here[name] for name in ("hidden", "pooled")}, atol=0.05)
    hidden = np.asarray(outputs["hidden"])
    assert (hidden == hidden.astype("bfloat16")).all()


def test_a_disk_that_refuses_leaves_no_program(tmp_path):
    model = served(MODELS["bert"], random_params(MODELS["bert"]), ["hidden", "pooled"])
    with (
        files_of_at_most(10_000),
        pytest.raises(UserError, match="params.npz: cannot be written"),
    ):
        export_stablehlo(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
