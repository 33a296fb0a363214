import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import (
    Config,
    DataConfig,
    ModelConfig,
    TokenizerConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from bertjax.errors import UserError


@given(st.builds(Config, seed=st.integers(0, 2**32 - 1), train=st.builds(TrainConfig, steps=st.integers(10_000, 10**9)),
                 data=st.builds(DataConfig, corpus=st.lists(st.text(st.characters(exclude_characters="\0")), min_size=1, max_size=3).map(tuple))))  # fmt: skip
def test_a_configuration_survives_json(config):
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_configurations_of_before_there_were_several_remat_policies_are_read():
    for old, new in ((False, "none"), (True, "full")):
        assert from_dict(ModelConfig, {"remat": old}).remat == new


@pytest.mark.parametrize("value", [None, True, False])
def test_a_setting_that_may_be_left_open_survives_json(value):
    config = Config(tokenizer=TokenizerConfig(strip_accents=value))
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config
    # As in configurations of before there was the setting.
    assert from_dict(TokenizerConfig, {}).strip_accents is None


@pytest.mark.parametrize("values,message", [
    ({"tokenizer": {"strip_accents": 1}}, "config.tokenizer.strip_accents: found 1, expected a value of type bool"),
    ({"sed": 1}, "config: found the field 'sed', expected one of seed, "),
    ({"sed": 1}, "; the nearest is seed"),
    ({"train": {"stepps": 1}}, "config.train: found the field 'stepps'"),
    ({"train": 3}, "config.train: found 3, expected an object"),
    ({"train": {"steps": "many"}}, "config.train.steps: found 'many', expected a value of type int"),
    ({"seed": True}, "config.seed: found True, expected a value of type int"),
    ({"data": {"corpus": "text"}}, "config.data.corpus: found 'text', expected a list"),
    ({"data": {"mlm_probability": 2**70}}, "config.data.mlm_probability: found an integer of 71 bits"),
    ({"model": {"remat": "all"}}, "config.model.remat: found 'all', expected one of none, dots, heads, full"),
])  # fmt: skip
def test_fields_and_types_that_do_not_exist_are_refused_naming_the_place(values, message):
    with pytest.raises(UserError) as caught:
        from_dict(Config, values)
    assert message in str(caught.value)


def test_no_text_of_a_configuration_or_of_its_errors_has_a_databases_password():
    url = "sql:postgresql://u:s3cret@h/db?query=SELECT a FROM b"
    config = Config(data=DataConfig(corpus=(url, "a.txt")))
    for text in (repr(config), str(config), f"{config.data}", str([config])):
        assert "s3cret" not in text
        assert "corpus=('sql:postgresql://u@h/db?query=SELECT a FROM b', 'a.txt')" in text
    assert repr(DataConfig()).startswith("DataConfig(corpus=('python-docs',), format='auto', ")
    for changes in (
        {"data": url}, {"data": [url]}, {"data": {"corpus": url}}, {"data": {"corpus": {url: 1}}},
        {"data": {"corpus": [[url]]}}, {"data": {url: 5}}, {"init_from": (url,)}, {"tokenizer": config.data},
    ):  # fmt: skip
        with pytest.raises(UserError, match="found") as caught:
            config.replace(**changes)
        assert "s3cret" not in str(caught.value)
