import flax
import jax
import pytest
from flax.traverse_util import flatten_dict

from bertjax.errors import UserError
from bertjax.interop.programs.serving import (
    choose_outputs,
    new_program,
    served_model,
    serving_function,
)
from tests.interop.exported_programs import (
    MODELS,
    assert_same,
    expected,
    random_inputs,
    random_params,
    served,
)


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
