import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import bertjax
from bertjax.errors import UserError
from bertjax.interop.checkpoints import tensorflow
from bertjax.model import functional
from tests.factory import SMALL_MODEL
from tests.interop.damage import damage, damages
from tests.interop.trees import same

MODEL = dataclasses.replace(SMALL_MODEL, num_hidden_layers=3)


def random_params(config):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32),
        functional.shapes(config),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_act": "gelu_tanh"},
        {"hidden_act": "relu", "heads": ("mlm",)},
        {"heads": ("pooler",)},
    ],
    ids=str,
)
def test_a_model_comes_back_bit_for_bit(tmp_path, changes):
    config = dataclasses.replace(MODEL, **changes)
    params = random_params(config)
    tensorflow.save(tmp_path, config, params)
    read_config, again = tensorflow.load(tmp_path)
    assert read_config == config
    assert same(params, again)
    assert same(tensorflow.load(tmp_path / "bert_model.ckpt")[1], params)  # by its prefix, too


def test_tensorflow_reads_the_names_and_layouts_of_the_original(tmp_path):
    import tensorflow as tf

    params = random_params(MODEL)
    tensorflow.save(tmp_path, MODEL, params)
    reader = tf.train.load_checkpoint(str(tmp_path / "bert_model.ckpt"))
    layers = params["encoder"]["layers"]
    expected = {
        "bert/embeddings/word_embeddings": params["embeddings"]["word"]["embedding"],
        "bert/embeddings/LayerNorm/gamma": params["embeddings"]["layer_norm"]["scale"],
        "bert/encoder/layer_2/attention/self/key/kernel": layers["attention"]["key"]["kernel"][2].reshape(16, 16),
        "bert/encoder/layer_1/attention/output/dense/kernel": layers["attention"]["output"]["kernel"][1].reshape(16, 16),
        "bert/encoder/layer_1/attention/output/LayerNorm/beta": layers["attention_layer_norm"]["bias"][1],
        "bert/encoder/layer_0/output/dense/kernel": layers["mlp"]["down"]["kernel"][0],
        "bert/pooler/dense/kernel": params["pooler"]["kernel"],
        "cls/predictions/transform/LayerNorm/beta": params["mlm"]["layer_norm"]["bias"],
        "cls/predictions/output_bias": params["mlm"]["bias"],
        "cls/seq_relationship/output_weights": params["nsp"]["kernel"].T,
    }  # fmt: skip
    for name, array in expected.items():
        assert np.array_equal(reader.get_tensor(name), array), name
    assert len(reader.get_variable_to_shape_map()) == 5 + 3 * 16 + 2 + 5 + 2
    assert json.loads((tmp_path / "bert_config.json").read_text())["hidden_act"] == "gelu"


def test_moments_and_the_step_of_a_training_checkpoint_are_left_out(tmp_path):
    import tensorflow as tf

    params = random_params(MODEL)
    tensorflow.save(tmp_path, MODEL, params)
    reader = tf.train.load_checkpoint(str(tmp_path / "bert_model.ckpt"))
    tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    tensors |= {
        f"{name}/{moment}": array
        for name, array in list(tensors.items())
        for moment in ("adam_m", "adam_v")
    }
    tensors["global_step"] = np.int64(7)
    write(tmp_path / "model.ckpt-7", tensors)
    assert same(tensorflow.load(tmp_path / "model.ckpt-7")[1], params)
    with pytest.raises(
        UserError, match=r"found bert_model.ckpt.index, model.ckpt-7.index, expected one \*.index"
    ):
        tensorflow.load(tmp_path)


def write(prefix, tensors):
    import tensorflow as tf

    names, values = list(tensors), [tf.constant(array) for array in tensors.values()]
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
    )


KEY = "bert/encoder/layer_1/attention/self/key/kernel"


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda t: t.pop(KEY), f"{KEY}: found no such tensor, expected one of shape [16, 16]"),
        (lambda t: t.update({KEY: np.zeros((16, 8), np.float32)}), f"{KEY}: found shape [16, 8], expected shape [16, 16]"),
        (lambda t: t.update({"bert/extra": np.zeros(3, np.float32)}), "bert/extra: found a tensor of shape [3]"),
        (lambda t: t.update({KEY: np.zeros((16, 16), np.int8)}), f"{KEY}: found the type int8, expected one of float32, float16"),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named(tmp_path, change, expected):
    tensorflow.save(tmp_path, MODEL, random_params(MODEL))
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(tmp_path / "bert_model.ckpt"))
    tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    change(tensors)
    write(tmp_path / "bert_model.ckpt", tensors)
    with pytest.raises(UserError) as error:
        tensorflow.load(tmp_path)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"position_offset": 2, "heads": ("mlm",)}, "what makes it roberta, expected plain BERT"),
        ({"layer_norm_eps": 1e-5}, "model.layer_norm_eps: found 1e-05, expected 1e-12"),
    ],
)
def test_a_model_that_the_original_has_not_is_refused(tmp_path, changes, expected):
    config = dataclasses.replace(SMALL_MODEL, **changes)
    with pytest.raises(UserError, match=expected):
        tensorflow.save(tmp_path / "new", config, bertjax.init(config, jax.random.key(0)))
    assert not (tmp_path / "new").exists()


@pytest.fixture
def exported(tmp_path, whole):
    for name, content in whole[0].items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


SHARD = "bert_model.ckpt.data-00000-of-00001"


def test_a_file_of_a_checkpoint_that_is_missing_is_named(exported, whole):
    (exported / SHARD).rename(exported / "bert_model.ckpt.data-00000-of-00002")
    with pytest.raises(UserError, match="found no bert_model.ckpt.data-00001-of-00002, expected"):
        tensorflow.load(exported)
    (exported / SHARD).write_bytes(whole[0][SHARD])  # the other is of an earlier checkpoint
    assert same(tensorflow.load(exported)[1], whole[1])
    for file in exported.glob("*.data-*"):
        file.unlink()
    with pytest.raises(
        UserError, match=r"found no bert_model.ckpt.data-\*, expected all the files"
    ):
        tensorflow.load(exported)
    (exported / SHARD).write_bytes(whole[0][SHARD])
    (exported / "bert_model.ckpt.index").unlink()
    with pytest.raises(UserError, match=f"found {SHARD} without bert_model.ckpt.index, expected"):
        tensorflow.load(exported)
    with pytest.raises(UserError, match="neither a folder nor .*, expected bert_model.ckpt.index"):
        tensorflow.load(exported / "bert_model.ckpt")


@pytest.mark.parametrize("file", ["bert_model.ckpt.index", SHARD, "bert_model.ckpt.meta"])
def test_any_file_of_a_checkpoint_names_it_and_another_folders_checkpoint_is_not_read(
    exported, whole, file
):
    path = "/elsewhere/model.ckpt-9"
    (exported / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\n')
    (exported / "bert_model.ckpt.meta").write_bytes(b"")
    for source in (exported, exported / file):
        assert same(tensorflow.load(source)[1], whole[1])


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"embedding_size": 8}, "embedding_size: found 8, expected that of hidden_size"),
        ({"is_decoder": True}, "is_decoder: found True, expected False"),
        ({"hidden_size": 32}, "found shape [16], expected shape [32]"),
        (
            {"num_hidden_layers": 3},
            "bert/encoder/layer_2/attention/self/key/bias: found no",
        ),
        (
            {"num_hidden_layers": 1},
            "; `bertjax import` leaves them out with --drop bert/encoder/lay",
        ),
        ({"vocab_size": 60}, "found shape [64, 16], expected shape [60, 16]"),
    ],
)
def test_a_configuration_of_another_model_is_named(exported, values, expected):
    path = exported / "bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(UserError) as error:
        tensorflow.load(exported)
    assert expected in str(error.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    params = random_params(SMALL_MODEL)
    tensorflow.save(folder, SMALL_MODEL, params)
    return {file.name: file.read_bytes() for file in folder.iterdir()}, params


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage_=damages())
@pytest.mark.parametrize(
    "name", ["bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001", "bert_config.json"]
)
def test_any_damage_ends_in_one_line_or_in_the_same_numbers(whole, tmp_path_factory, name, damage_):
    folder = tmp_path_factory.mktemp("damaged")
    for file, content in whole[0].items():
        (folder / file).write_bytes(damage(content, *damage_) if file == name else content)
    try:
        _, params = tensorflow.load(folder)
    except UserError as error:
        assert str(folder) in str(error) or "model." in str(error)  # noqa: PT017
    else:
        assert same(params, whole[1])


READ = """
import sys, numpy as np, torch, transformers
config = transformers.BertConfig.from_json_file(sys.argv[1] + "/bert_config.json")
from transformers.models.bert.modeling_bert import load_tf_weights_in_bert
model = load_tf_weights_in_bert(transformers.BertForPreTraining(config), config, sys.argv[1] + "/bert_model.ckpt")
ids = np.random.default_rng(0).integers(5, 64, (3, 9))
with torch.no_grad():
    out = model.eval()(torch.tensor(ids), output_hidden_states=True)
scores = [out.hidden_states[-1], out.prediction_logits, out.seq_relationship_logits]
np.savez(sys.argv[1] + "/expected.npz", *[x.numpy() for x in scores], ids=ids)
"""


@pytest.mark.slow
def test_the_reader_of_original_checkpoints_in_transformers_4_gives_the_same_outputs(
    tmp_path, transformers_4, largest
):
    params = jax.tree.map(lambda x: 0.1 * x, random_params(MODEL))
    tensorflow.save(tmp_path, MODEL, params)
    environment = os.environ | {"PYTHONPATH": str(transformers_4)}
    subprocess.run([sys.executable, "-c", READ, str(tmp_path)], env=environment, check=True)
    reference = np.load(tmp_path / "expected.npz")
    hidden = bertjax.encode(MODEL, params, {"input_ids": reference["ids"]}).hidden_BxLxD
    outputs = {
        "hidden states": hidden,
        "word scores": bertjax.mlm_logits(MODEL, params, hidden),
        "sentence scores": bertjax.nsp_logits(MODEL, params, bertjax.pool(MODEL, params, hidden)),
    }
    for number, (kind, output) in enumerate(outputs.items()):
        difference = float(np.abs(output - reference[f"arr_{number}"]).max())
        largest(f"TensorFlow checkpoint, exported: {kind}", difference, 1e-5)
