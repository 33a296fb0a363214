import dataclasses
import json
from pathlib import Path

import pytest

from bertjax.config import Config, from_dict, load_config, preset_names, to_dict
from bertjax.errors import UserError

FOLDER = Path(__file__).parents[2] / "configs"
CLASSES = "from bertjax.config import *\n"
MINE = "from bertjax.config import load_config\n\ndef get_config():\n    return load_config('tiny').replace(seed=7)\n"


def test_every_file_of_configs_is_a_preset():
    names = {str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.py")}
    assert set(preset_names()) == names
    assert {"tiny", "base", "fast/base", "finetune/paper"} <= names


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_by_name_and_by_path_and_says_how_to_run_it(name):
    config = load_config(name)
    path = FOLDER / f"{name}.py"
    assert load_config(str(path)) == config
    assert from_dict(Config, to_dict(config)) == config
    command = "finetune" if name.startswith("finetune/") else f"train {name}"
    if name.startswith("distill/"):
        command = f"distill {name}"
    assert f"bertjax {command}" in path.read_text()


@pytest.mark.parametrize("short,name", [
    ("paper", "finetune/paper"), ("few_samples", "finetune/few_samples"), ("base", "base"),
])  # fmt: skip
def test_the_last_part_of_a_name_is_enough_where_it_is_unique(short, name):
    assert load_config(short) == load_config(name)


def test_a_file_goes_before_a_preset_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny").mkdir()
    assert load_config("tiny").seed == 0
    Path("tiny").rmdir()
    Path("tiny").write_text(MINE.replace("'tiny'", "'base'"))
    assert load_config("tiny") == load_config("base").replace(seed=7)


def test_an_own_file_builds_on_a_preset(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(MINE)
    assert load_config(str(own)) == load_config("tiny").replace(seed=7)
    own.write_text("from bertjax.presets.fast import base\nget_config = base.get_config\n")
    assert load_config(str(own)) == load_config("fast/base")


@pytest.mark.parametrize("name,nearest", [
    ("tini", "tiny"), ("fast/bass", "fast/base"), ("qqqq", None),
])  # fmt: skip
def test_a_name_that_is_neither_file_nor_preset_is_refused_with_the_list_of_presets(name, nearest):
    with pytest.raises(UserError) as caught:
        load_config(name)
    message = str(caught.value)
    assert message.startswith(f"{name}: found no such configuration file or preset, expected")
    assert ", ".join(preset_names()) in message
    assert "\n" not in message
    assert message.endswith("tiny" if nearest is None else f"; the nearest is {nearest}")


@pytest.mark.parametrize("source,message", [
    ("get_config = 3", ": found no function get_config, expected one that returns a bertjax Config"),
    ("x = 1", ": found no function get_config"),
    ("import sys\nsys.exit()", ", line 2: ended by SystemExit"),
    ("import sys\nsys.exit(0)", ", line 2: is no working configuration (SystemExit: 0)"),
    ("\nraise KeyboardInterrupt", ", line 2: ended by KeyboardInterrupt"),
    ("def get_config():\n    import sys\n    sys.exit('a\\nb')", ", line 3: is no working configuration (SystemExit: a b)"),
    ("a = (\n", ", line 1: is no working configuration (SyntaxError: "),
    ("import json\n\njson.loads('')", ", line 3: is no working configuration (JSONDecodeError: "),
    ("def get_config(): return get_config()", ", line 1: is no working configuration (RecursionError"),
    ("x = 1\0", ": is no working configuration ("),
    (f"{CLASSES}def get_config(): return Config(model=ModelConfig(dtype='float16'))", ", line 2: model.dtype: found 'float16'"),
    (f"{CLASSES}def get_config(): return Config(model={{}})", ", line 2: model: found {}, expected a value of type ModelConfig"),
    (f"{CLASSES}def get_config(): return Config(train=TrainConfig(steps='ten'))", ", line 2: train.steps: found 'ten', expected a value of type int"),
    ("def get_config(): return 3", "found get_config() giving int, expected a bertjax Config"),
    ("from bertjax.config import *\ndef get_config(): return Config(seed=-1)", "seed: found -1"),
])  # fmt: skip
def test_a_file_that_gives_no_configuration_is_refused_naming_it(tmp_path, source, message):
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(UserError) as caught:
        load_config(str(path))
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).count(str(path)) == 1
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_json_file_of_a_run_is_a_configuration_too(tmp_path):
    path = tmp_path / "config.json"
    config = load_config("tiny").replace(seed=3, data={"corpus": ["a.txt"]})
    path.write_text(json.dumps(to_dict(config)))
    assert load_config(path) == config


@pytest.mark.parametrize("content,message", [
    ("", ": is no JSON ("), ("[" * 100_000, ": is no JSON ("), ("[]", ": found [], expected an object"),
    ('{"seed": "a"}', ".seed: found 'a', expected a value of type int"),
    ('{"trian": {}}', ": found the field 'trian', expected one of "),
    ('{"model": {"dtype": "float16"}}', ".model.dtype: found 'float16', expected one of "),
    ('{"optimizer": {"b1": NaN}}', ".optimizer.b1: found nan, expected a finite number"),
])  # fmt: skip
def test_a_wrong_json_file_is_one_line_that_names_it(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in preset_names() if name.startswith("fast/")])
def test_a_fast_configuration_differs_from_its_namesake_in_what_it_says_only(name):
    fast, paper = load_config(name), load_config(name.removeprefix("fast/"))
    changed = {
        f.name
        for f in dataclasses.fields(fast.model)
        if getattr(fast.model, f.name) != getattr(paper.model, f.name)
    }
    assert changed == {
        "hidden_act",
        "attention_probs_dropout_prob",
        "kernels",
        "dropout_bits",
        "remat",
        "scan_unroll",
    }
    assert fast.replace(model=paper.model) == paper


def test_base_and_large_are_the_papers():
    for name, sizes in {"base": (12, 768, 12, 3072), "large": (24, 1024, 16, 4096)}.items():
        first, second = (load_config(f"{name}{part}") for part in ("", "_phase2"))
        m = first.model
        assert (
            m.num_hidden_layers,
            m.hidden_size,
            m.num_attention_heads,
            m.intermediate_size,
        ) == sizes
        assert (m.hidden_dropout_prob, m.attention_probs_dropout_prob, m.hidden_act) == (
            0.1,
            0.1,
            "gelu",
        )
        assert (first.data.max_seq_length, second.data.max_seq_length) == (128, 512)
        assert first.train.batch_size == second.train.batch_size == 256
        assert first.train.steps + second.train.steps == 1_000_000
        assert first.model == second.model
