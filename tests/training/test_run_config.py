import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.training import run_config
from tests.factory import small_config


@pytest.fixture
def run(tmp_path):
    return epath.Path(tmp_path) / "run"


def test_a_run_keeps_its_configuration(run):
    run_config.write_run_config(run, small_config())
    assert run_config.read_run_config(run) == small_config()
    run_config.write_run_config(run, small_config(train={"save_every_steps": 1}, mesh={"data": -1}))
    assert run_config.read_run_config(run).train.save_every_steps == 1


@pytest.mark.parametrize("changes,message", [
    ({"optimizer": {"peak_learning_rate": 0.5}}, r"optimizer\.peak_learning_rate: found 0\.5, expected 0\.01, with which"),
    ({"seed": 3}, "seed: found 3, expected 0"),
    ({"train": {"steps": 7}}, r"train\.steps: found 7, expected 6"),
    ({"model": {"num_hidden_layers": 3}}, r"model\.num_hidden_layers: found 3, expected 2"),
])  # fmt: skip
def test_a_field_that_changes_the_numbers_must_stay_as_it_was(run, changes, message):
    run_config.write_run_config(run, small_config())
    with pytest.raises(UserError, match=message):
        run_config.write_run_config(run, small_config(**changes))


def test_a_run_does_not_keep_the_password_of_a_corpus_and_may_go_on_with_another(run):
    rest = "@h/d?query=SELECT text FROM t"
    run_config.write_run_config(
        run, small_config(data={"corpus": (f"sql:postgresql://u:secret{rest}",)})
    )
    assert "secret" not in (run / "config.json").read_text()
    config = small_config(data={"corpus": (f"sql:postgresql://u{rest}",)})
    assert run_config.read_run_config(run) == config
    run_config.write_run_config(run, config)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"sed": 1}', '{"model": {"hidden_size": "big"}}', '{"model": 3}']
)
def test_a_broken_configuration_is_named(run, text):
    run.mkdir()
    (run / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        run_config.read_run_config(run)
