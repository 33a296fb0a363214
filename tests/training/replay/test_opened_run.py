import itertools
import json
import shutil

import pytest

import bertjax
from bertjax.config import TrainConfig
from bertjax.config.phases.resolution import phases_of
from bertjax.errors import UserError
from bertjax.training.integrity.record import OWN, with_own_digest
from bertjax.training.provenance import data_record
from bertjax.training.replay.opened_run import updates_of
from tests.factory import small_config
from tests.training.replay.runs_of_phases import config_of, library

# A run is trained, so these are slow.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with library(tmp_path_factory.mktemp("opened")) as folder:
        bertjax.train(config_of(train={"save_every_steps": 9, "steps": 7}), "runs/one")
        yield folder


@pytest.fixture
def copy(run):
    """A copy of the run, whose files may be changed."""
    shutil.rmtree("runs/copy", ignore_errors=True)
    shutil.copytree("runs/one", "runs/copy")
    return run / "runs" / "copy"


def refused(message):
    with pytest.raises(UserError, match=message) as error:
        bertjax.replay("runs/copy", 2)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=message):
        bertjax.find_steps("runs/copy", "the cat")


def change(path, section, **values):
    content = json.loads(path.read_text())
    content[section] |= values
    path.write_text(json.dumps(content))


def test_other_data_in_the_folder_are_refused(copy):
    shutil.copytree("prepared/tiny", "prepared/kept")
    try:
        shutil.rmtree("prepared/tiny")
        vocabulary = {"vocab_file": "prepared/kept/tokenizer/vocab.txt"}
        bertjax.prepare(config_of().replace(phases=(), tokenizer=vocabulary, seed=5))
        refused("runs/copy: data, all: found [0-9a-f]{12}, expected [0-9a-f]{12}, on which step")
    finally:
        shutil.rmtree("prepared/tiny")
        shutil.move("prepared/kept", "prepared/tiny")


def test_a_shard_that_is_not_the_one_of_the_manifest_is_refused(copy):
    (shard,) = (copy.parents[1] / "prepared" / "tiny").glob("*train*")
    content = shard.read_bytes()
    try:
        shard.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        refused("prepared/tiny")
    finally:
        shard.write_bytes(content)


def test_a_missing_folder_is_refused(copy):
    shutil.move("prepared/short", "prepared/away")
    try:
        refused("prepared/short: found no such folder")
    finally:
        shutil.move("prepared/away", "prepared/short")


def test_another_seed_in_the_configuration_is_refused(copy):
    path = copy / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1', 1))
    refused("config.json: seed: found 1, expected 0, with which the run began")


def test_a_run_without_a_checkpoint_is_refused(copy):
    shutil.rmtree(copy / "checkpoints")
    refused("runs/copy: found no checkpoint, expected one or more, which record")


def test_no_run_is_refused(copy):
    shutil.rmtree(copy)
    refused("runs/copy/config.json")


@pytest.mark.parametrize("section,values,message", [
    ("finetune", {"tasks": ["good:classification=tasks/good"], "max_seq_length": 16, "length_buckets": []}, "found a fine-tuned run"),
    ("distill", {"teacher": "runs/teacher"}, "found a distilled run"),
])  # fmt: skip
def test_runs_of_another_kind_are_refused(copy, section, values, message):
    content = json.loads((copy / "config.json").read_text())
    content["phases"] = []
    (copy / "config.json").write_text(json.dumps(content))
    change(copy / "config.json", section, **values)
    refused(message)


def test_steps_before_a_change_of_data_are_refused_and_later_ones_are_replayed(copy):
    meta = copy / "checkpoints" / "7" / "meta" / "metadata"
    content = json.loads(meta.read_text())
    before = {"step": 4, data_record.DATA: {"all": "0" * 64}}
    content[data_record.CHANGES] = [before]
    del content[OWN]
    meta.write_text(json.dumps(with_own_digest(content)))
    assert bertjax.replay("runs/copy", 5).step == 5
    with pytest.raises(UserError, match="data, .*: found .*, on which step 4 was trained"):
        bertjax.replay("runs/copy", 4)
    with pytest.raises(UserError, match="went on with other data at step 4"):
        bertjax.find_steps("runs/copy", "the cat")


def test_updates_of_a_growing_batch_fill_the_phase():
    config = small_config(
        train=TrainConfig(
            steps=13, batch_size=8, batch_size_schedule="ramp", max_batch_size=32,
            batch_size_steps=4,
        )
    )  # fmt: skip
    (phase,) = phases_of(config)
    spans = updates_of(phase)
    assert spans[0].begin == 0
    assert spans[-1].end == 13
    assert all(a.end == b.begin for a, b in itertools.pairwise(spans))
    (constant,) = phases_of(small_config())
    assert updates_of(constant) is None
