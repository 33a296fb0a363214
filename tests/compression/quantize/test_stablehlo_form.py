"""Programs of jax.export whose matrices are integers."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bertjax.compression.quantize.options import QuantizeOptions
from bertjax.compression.quantize.stablehlo_form import (
    StablehloForm,
    quantized_model,
    served_places,
)
from bertjax.compression.runtimes.programs import StablehloProgram
from bertjax.errors import UserError
from bertjax.finetuning.objective import ROUNDING
from bertjax.interop.programs.serving import INPUTS, served_model, serving_function
from bertjax.model import functional
from bertjax.model.matrices import fake_quantized
from tests.compression.small_runs import encoder_run
from tests.interop.exported_programs import COMPOSED, MODELS

FORMS = [
    pytest.param("none", "channel", 8, 0.03, marks=pytest.mark.slow),
    pytest.param("none", "tensor", 8, 0.05, marks=pytest.mark.slow),
    pytest.param("none", "channel", 4, 0.5, marks=pytest.mark.slow),
    ("dynamic", "channel", 8, 0.05),
    pytest.param("static", "channel", 8, 0.1, marks=pytest.mark.slow),
]


def opened(folder):
    """The program as the process of a runtime has it, here: a process takes seconds to start."""
    return StablehloProgram(folder, 1)


def predicted(program, inputs):
    return program.arrays(program.run(program.prepare(inputs), list(program.outputs)))


def some_rows(config, shape=(3, 9)):
    ids = np.random.default_rng(1).integers(0, config.vocab_size, shape).astype(np.int32)
    mask = np.ones_like(ids)
    mask[0, 5:] = 0
    return {"input_ids": ids, "input_mask": mask, "segment_ids": np.zeros_like(ids)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return encoder_run(tmp_path_factory.mktemp("form"), heads=("pooler", "mlm"))


def form_of(run, **options):
    rows = [some_rows(MODELS["bert"], (4, length)) for length in (6, 9)]
    chosen = QuantizeOptions(format="stablehlo", **options)
    return StablehloForm(run, "mlm_logits", chosen, calibration=rows)


@pytest.mark.parametrize(("activations", "granularity", "bits", "bound"), FORMS)
def test_a_program_holds_integers_and_computes_nearly_the_same(
    run, tmp_path, activations, granularity, bits, bound, largest
):
    pytest.importorskip("qwix")
    form = form_of(run, activations=activations, granularity=granularity, bits=bits)
    exact, quantized = tmp_path / "exact", tmp_path / "int"
    form.write(exact, [])
    form.write(quantized, form.weights())
    before, after = opened(exact), opened(quantized)
    types = form.check_types(quantized, after, ())
    kind = {8: "int8", 4: "uint8"}[bits]
    floats = sum(size for _, size in before.stored.values())
    # What is left in float are biases, norms and, of these small matrices, many scales.
    assert 0.85 < types[kind] / (floats * bits / 32) < 1
    inputs = some_rows(MODELS["bert"])
    real = inputs["input_mask"].astype(bool)
    expected = predicted(before, inputs)["mlm_logits"][real]
    found = predicted(after, inputs)["mlm_logits"][real]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    largest(f"logits of JAX int{bits} per {granularity}, activations {activations}", error, bound)
    assert error > 1e-4


def test_types_are_those_that_the_runtime_has_in_memory(run, tmp_path):
    pytest.importorskip("qwix")
    form = form_of(run)
    kept = "encoder/layers/mlp/up/kernel"
    form.write(tmp_path / "kept", [name for name in form.weights() if name != kept])
    runtime = opened(tmp_path / "kept")
    assert form.check_types(tmp_path / "kept", runtime, (kept,))["int8"] > 0
    with pytest.raises(
        UserError, match=rf"kept: {kept}: found float32, .* expected int8, [\d,]+ b"
    ):
        form.check_types(tmp_path / "kept", runtime, ())
    with pytest.raises(UserError, match="pooler|embeddings.*: found int8, .*, expected float32"):
        form.check_types(tmp_path / "kept", runtime, form.weights())
    runtime.stored = {}
    with pytest.raises(UserError, match="found no such array, expected"):
        form.check_types(tmp_path / "kept", runtime, ())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({**MODELS, **COMPOSED}))
@pytest.mark.parametrize("activations", ["none", "dynamic", "static"])
def test_each_kind_of_model_has_a_program_of_integers(name, activations, tmp_path, largest):
    pytest.importorskip("qwix")
    config = {**MODELS, **COMPOSED}[name]
    positions = config.max_position_embeddings + config.position_offset
    run = encoder_run(tmp_path, **config.__dict__ | {"max_position_embeddings": positions})
    rows = some_rows(config, (4, 9))
    options = QuantizeOptions(format="stablehlo", activations=activations)
    form = StablehloForm(run, "hidden", options, calibration=[rows])
    form.write(tmp_path / "exact", [])
    form.write(tmp_path / "int", form.weights())
    form.check_types(tmp_path / "int", opened(tmp_path / "int"), ())
    expected = predicted(opened(tmp_path / "exact"), rows)["hidden"]
    found = predicted(opened(tmp_path / "int"), rows)["hidden"]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    largest(f"hidden states in JAX, activations {activations}", error, 0.06)


def test_parameters_that_no_output_needs_are_no_weights():
    config = MODELS["bert"]
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), functional.shapes(config))
    assert "pooler/kernel" not in served_places(served_model(config, zeros, ("hidden",)))
    assert "pooler/kernel" in served_places(served_model(config, zeros, ("pooled",)))


@pytest.mark.parametrize("form", ["int8", pytest.param("int4", marks=pytest.mark.slow)])
def test_what_training_rounds_is_what_the_program_holds(form):
    pytest.importorskip("qwix")
    config = MODELS["bert"]
    params = jax.jit(lambda: functional.init(config, jax.random.key(0)))()
    served = served_model(config, params, ("mlm_logits",))
    bits, inputs_too = ROUNDING[form]
    activations = "dynamic" if inputs_too else "none"
    options = QuantizeOptions(format="stablehlo", bits=bits, activations=activations)
    integers = quantized_model(served, served_places(served), options, {})
    rows = some_rows(config)
    inputs = [rows[name] for name in INPUTS]
    found = jax.jit(serving_function(integers))(integers.params, *inputs)["mlm_logits"]
    fake = fake_quantized(params, served_places(served), bits, inputs_too)
    # As flat parameters, which the serving function takes.
    flat = flatten_dict(fake, sep="/")
    expected = jax.jit(serving_function(served))(flat, *inputs)["mlm_logits"]
    real = rows["input_mask"].astype(bool)
    difference = np.abs(found - expected).max(axis=-1)[real]
    # Sums of integers are exact, those of floats are not: where a value lies between two steps, the
    # two may round it differently. That is a step of 255 in an input or two, of few tokens.
    assert np.mean(difference < 1e-5) > 0.8
    assert difference.max() < 3e-3
    exact = jax.jit(serving_function(served))(served.params, *inputs)["mlm_logits"]
    assert np.abs(found - exact).max() > 2e-3
