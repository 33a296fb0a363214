"""Runs that begin or go on; what they begin with is compared in `test_loop.py`."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.finetuning.objective import TaskObjective
from bertjax.model import functional
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.training import checkpoint
from bertjax.training.initial_state import begun, check_initial_params
from bertjax.training.integrity.damage import DamagedCheckpointError
from bertjax.training.pretraining import pretraining
from bertjax.training.saved_model import save_model
from bertjax.training.step import abstract_state
from tests.factory import small_config
from tests.families.tiny import tiny
from tests.tasks.tiny import MODEL, TOKENIZER, config_of
from tests.training.checkpoints import change_an_array, flip, put_other_numbers, random_state, saved


def begin(run, **train):
    """Begin as the training loop does; return the step, and close the checkpoints."""
    config = small_config(train=train)
    mesh, objective = make_mesh(config.mesh, jax.devices()[:1]), pretraining(config)
    target = abstract_state(config, mesh, objective)
    _, checkpoints, state = begun(config, run, mesh, objective, {}, target)
    checkpoints.close()
    return int(state.step)


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints of steps 3, 4 and 5."""
    run = epath.Path(tmp_path) / "run"
    saved(run, [(3, 1.0), (4, 0.5), (5, 0.7)], keep=9, make_state=random_state)
    return run


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(run, caplog):
    assert begin(run) == 5
    change_an_array(run, 5)
    meta = run / "checkpoints" / "4" / "meta" / "metadata"
    flip(meta, 8 * meta.read_text().index("hidden_size"))
    assert begin(run) == 3
    assert names(run) == ["3", "4.damaged", "5.damaged"]
    lines = [entry.getMessage() for entry in caplog.records if "damaged" in entry.getMessage()]
    assert len(lines) == 2
    assert all("goes on from step" in line and "\n" not in line for line in lines)
    # The other readers take the newest that is left.
    assert checkpoint.find_checkpoint(run)[1].name == "3"


def test_a_run_refuses_a_damaged_checkpoint_where_this_is_asked(run):
    change_an_array(run, 5)
    with pytest.raises(DamagedCheckpointError, match=r"5: found .*the one before it is .*/4\)"):
        begin(run, damaged_checkpoint="refuse")
    assert names(run) == ["3", "4", "5"]
    # The setting may change when a run is continued.
    assert begin(run) == 4


def test_an_older_checkpoint_whose_score_cannot_be_read_is_set_aside(run):
    """Orbax reads the scores of all, to keep the best."""
    (run / "checkpoints" / "3" / "metrics" / "metrics").write_text("{")
    assert begin(run) == 5
    assert names(run) == ["3.damaged", "4", "5"]


def test_a_damaged_model_to_start_from_is_refused_and_left_alone(run, tmp_path):
    put_other_numbers(run, 5, "params/pooler/bias")
    config = small_config().replace(init_from=str(run))
    mesh, objective = make_mesh(config.mesh, jax.devices()[:1]), pretraining(config)
    target = abstract_state(config, mesh, objective)
    with pytest.raises(UserError, match=r"run/checkpoints/5: found .*before it is .*/4\)"):
        begun(config, epath.Path(tmp_path) / "new", mesh, objective, {}, target)
    assert names(run) == ["3", "4", "5"]


def test_a_run_that_began_before_the_setting_existed_goes_on(run):
    begin(run)
    path = run / "config.json"
    values = json.loads(path.read_text())
    assert values["train"].pop("damaged_checkpoint") == "previous"
    path.write_text(json.dumps(values))
    assert begin(run, damaged_checkpoint="refuse") == 5


TASK = SingleLabel("text", ("a", "b"))


def begun_on_a_task(source, model, run_dir, new_heads=(), **changes):
    """The parameters that a fine-tuning of `model` from `source` begins with."""
    # A task of this name needs no files here: none is read.
    config = config_of("text:classification=x", init_from=str(source), **changes)
    config = config.replace(model=model, new_heads=new_heads)
    objective = TaskObjective(model, (TASK,))
    mesh = make_mesh(config.mesh, jax.devices())
    check_initial_params(config, mesh, objective)
    target = abstract_state(config, mesh, objective)
    _, checkpoints, state = begun(config, epath.Path(run_dir), mesh, objective, {}, target)
    checkpoints.close()
    return state.params


def saved_start(folder, model):
    """A run of random numbers, none of which is 0 or 1."""
    shapes = functional.shapes(model)
    params = jax.tree.map(lambda s: 0.3 * jax.random.normal(jax.random.key(7), s.shape), shapes)
    save_model(folder, small_config(model=model), params, TOKENIZER, {})
    return params


def test_a_pooler_that_is_the_transform_of_masked_words_begins_as_its_copy(tmp_path, caplog):
    caplog.set_level("INFO", "bertjax")
    pretrained = tiny("modernbert")
    params = saved_start(tmp_path / "source", pretrained)
    model = dataclasses.replace(pretrained, heads=("pooler",))
    begins = begun_on_a_task(tmp_path / "source", model, tmp_path / "run")
    assert sorted(begins) == ["embeddings", "encoder", "pooler", "tasks"]
    expected = {**params["mlm"]["transform"], "layer_norm": params["mlm"]["layer_norm"]}
    jax.tree.map(np.testing.assert_array_equal, begins["pooler"], expected)
    assert "pooler from the mlm head" in caplog.text


def test_another_pooler_is_new_only_where_this_is_asked(tmp_path):
    pretrained = tiny("deberta-v2")
    saved_start(tmp_path / "source", pretrained)
    model = dataclasses.replace(pretrained, heads=("pooler",))
    with pytest.raises(UserError, match="params/pooler/.*: found no such tensor"):
        begun_on_a_task(tmp_path / "source", model, tmp_path / "run")
    begins = begun_on_a_task(tmp_path / "source", model, tmp_path / "other", ("pooler",))
    assert not begins["pooler"]["bias"].any()


def test_a_decoder_of_another_composition_than_the_encoder_is_refused(tmp_path):
    model = dataclasses.replace(MODEL, heads=())
    saved_start(tmp_path / "source", model)
    saved_start(tmp_path / "donor", dataclasses.replace(model, hidden_act="relu"))
    options = {"decoder_from": str(tmp_path / "donor")}
    message = r"decoder_from: model.hidden_act: found relu, expected gelu, as in the encoder"
    with pytest.raises(UserError, match=message):
        begun_on_a_task(tmp_path / "source", model, tmp_path / "run", finetune=options)
