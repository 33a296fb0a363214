import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.training import run_config
from tests.factory import small_config


@pytest.fixture
def run(tmp_path):
    return epath.Path(tmp_path) / "run"


def begun(run):
    """A run that has made an update with `small_config`."""
    run_config.write_run_config(run, small_config())
    (run / "metrics.jsonl").write_text('{"step": 1}\n')


def test_a_run_keeps_its_configuration(run):
    begun(run)
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
    begun(run)
    with pytest.raises(UserError, match=message):
        run_config.write_run_config(run, small_config(**changes))


def logged(run):
    (run / "metrics.jsonl").write_text('{"step": 1}\n')


def finished(run):
    (run / "result.json").write_text("{}")


def diverged(run):
    (run / "failed.json").write_text("{}")


def saved(run):
    (run / "checkpoints" / "3" / "meta").mkdir(parents=True)
    (run / "checkpoints" / "3" / "meta" / "metadata").write_text("{}")


def swept(run):
    cell = run / "cells" / "first"
    cell.mkdir(parents=True)
    finished(cell)


@pytest.mark.parametrize("begin", [logged, finished, diverged, saved, swept])
def test_a_run_has_begun_where_it_holds_a_result(run, begin):
    assert not run_config.has_begun(run)
    run.mkdir()
    assert not run_config.has_begun(run)
    begin(run)
    assert run_config.has_begun(run)


def test_a_start_that_ended_before_its_first_update_binds_nothing(run):
    # The log, an empty file of metrics and empty folders are there before the first update.
    run_config.write_run_config(run, small_config(train={"steps": 100_000}, seed=3))
    (run / "metrics.jsonl").write_text("")
    (run / "log.txt").write_text("a line\n")
    (run / "checkpoints").mkdir()
    (run / "cells" / "first").mkdir(parents=True)
    run_config.write_run_config(run, small_config())
    assert run_config.read_run_config(run) == small_config()
    (run / "config.json").write_text("{")
    run_config.write_run_config(run, small_config())
    assert run_config.read_run_config(run) == small_config()


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
