import dataclasses
from typing import get_args

import flax
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bertjax.config import ModelConfig
from bertjax.errors import UserError
from bertjax.interop.programs.serving import (
    choose_outputs,
    new_program,
    served_model,
    serving_function,
)
from tests.interop.exported_programs import (
    COMPOSED,
    MODELS,
    assert_same,
    expected,
    random_inputs,
    random_params,
    served,
)

FIELDS = {field.name: field for field in dataclasses.fields(ModelConfig)}
ACTIVATIONS = ("hidden_act", "mlm_act", "pooler_act")
# Fields that change how a model is trained or how fast it is, and not what it computes.
OF_TRAINING = {
    "attention_probs_dropout_prob",
    "dropout_bits",
    "dropout_places",
    "dtype",
    "embedding_noise",
    "embedding_noise_kind",
    "exported_as",
    "hidden_dropout_prob",
    "initializer",
    "initializer_range",
    "kernels",
    "remat",
    "scaled_init",
    "sparse_products",
    "z_loss",
}


def values_of(field):
    """The values that the type of a field lists; none for numbers."""
    if field.type is bool:
        return {True, False}
    parts = get_args(field.type)
    # The activations are a type inside another one, or the type of a tuple's elements.
    inner = {value for part in parts for value in get_args(part)}
    inner -= {"rtd"}  # no program has scores of replaced tokens
    return inner | {part for part in parts if isinstance(part, str)}


@pytest.mark.parametrize("field", sorted(FIELDS.keys() - OF_TRAINING))
def test_the_models_of_these_tests_have_every_value_of_a_field(field):
    """A value that no model has is not tested in the ONNX graph, which is written by hand.

    Of a field with a number, they have another one than the default.
    """
    # All activations are written by one function.
    read = ACTIVATIONS if field in ACTIVATIONS else (field,)
    found = set()
    for config in [*MODELS.values(), *COMPOSED.values()]:
        for name in read:
            value = getattr(config, name)
            found |= set(value) if isinstance(value, tuple) else {value}
    assert values_of(FIELDS[field]) <= found
    assert values_of(FIELDS[field]) or found - {FIELDS[field].default}


def test_the_mean_of_the_hidden_states_leaves_padding_out():
    config = dataclasses.replace(MODELS["gelu_tanh"], num_hidden_layers=1, pooling="mean")
    params = random_params(config)
    inputs = random_inputs(config, 1, 5)
    inputs["input_mask"] = np.array([[1, 1, 1, 0, 0]], np.int32)
    model = served(config, params)
    outputs = jax.jit(serving_function(model))(model.params, **inputs)
    mean = np.asarray(outputs["hidden"])[:, :3].mean(axis=1)
    pooled = np.tanh(mean @ params["pooler"]["kernel"] + params["pooler"]["bias"])
    np.testing.assert_allclose(outputs["pooled"], pooled, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_what_the_model_does(name):
    config, params = MODELS[name], random_params(MODELS[name])
    inputs = random_inputs(config, 5, 14)
    model = served(config, params)
    outputs = jax.jit(serving_function(model))(model.params, **inputs)
    assert_same(outputs, expected(config, params, inputs))


def test_parameters_are_by_their_path():
    config, params = MODELS["headless"], random_params(MODELS["headless"])
    model = served_model(config, params)
    assert model.params.keys() == flatten_dict(params, sep="/").keys()
    assert tuple(model.outputs) == ("hidden",)


def test_the_outputs_are_hidden_states_and_the_sentence_vector_where_there_is_one():
    assert choose_outputs(MODELS["bert"]) == {"hidden": ("b", "l", 16), "pooled": ("b", 16)}
    assert choose_outputs(MODELS["headless"]) == {"hidden": ("b", "l", 16)}
    assert choose_outputs(MODELS["bert"], ["nsp_logits", "mlm_logits"]) == {
        "nsp_logits": ("b", 2),
        "mlm_logits": ("b", "l", 64),
    }


@pytest.mark.parametrize(
    ("name", "outputs", "message"),
    [
        (
            "roberta",
            ["pooled"],
            "outputs: pooled: found a model without it, expected pooler among its model.heads",
        ),
        ("gelu_tanh", ["nsp_logits"], "outputs: nsp_logits: found a model without it"),
        (
            "bert",
            ["hidden", "last"],
            "outputs: found 'last', expected one of hidden, pooled, mlm_logits, nsp_logits",
        ),
        ("bert", ["hidden", "hidden"], "outputs: found hidden, hidden, expected each once"),
    ],
)
def test_outputs_that_the_model_has_not_are_refused(name, outputs, message):
    with pytest.raises(UserError, match=message):
        served_model(MODELS[name], random_params(MODELS[name]), outputs)


@pytest.mark.parametrize(
    ("outputs", "groups"),
    [
        (["hidden"], set()),
        (["pooled"], {"pooler"}),
        (["mlm_logits"], {"mlm"}),
        (["nsp_logits"], {"pooler", "nsp"}),
    ],
)
def test_parameters_that_no_output_needs_are_left_out(outputs, groups):
    config, params = MODELS["bert"], random_params(MODELS["bert"])
    model = served_model(config, params, outputs)
    assert {path.split("/")[0] for path in model.params} == {"embeddings", "encoder"} | groups
    assert len(model.params) == len(
        jax.tree.leaves({name: params[name] for name in {"embeddings", "encoder"} | groups})
    )
    inputs = random_inputs(config, 2, 5)
    serve = serving_function(model)
    jax.eval_shape(serve, model.params, **inputs)
    for path in model.params:
        rest = {name: leaf for name, leaf in model.params.items() if name != path}
        with pytest.raises(flax.errors.FlaxError):  # flax names what is missing
            jax.eval_shape(serve, rest, **inputs)


def test_a_program_is_not_written_over_another(tmp_path):
    folder = new_program(tmp_path / "a" / "b", "model.onnx")
    assert new_program(folder, "model.onnx") == folder
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="model.onnx: found a file, expected none"):
        new_program(folder, "model.onnx")
