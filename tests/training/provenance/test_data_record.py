"""A run goes on with its own data: attacks on what its newest checkpoint records."""

import contextlib
import json
import logging
import shutil

import numpy as np
import pytest
from etils import epath

import bertjax
from bertjax.config import Config
from bertjax.errors import UserError
from bertjax.training.integrity.record import OWN, with_own_digest
from bertjax.training.provenance import data_record
from bertjax.training.provenance.data_record import difference, is_known, with_changes
from tests.tiny_library import write_library


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A prepared corpus, another one of the same vocabulary, and a run on the first to step 2."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    with contextlib.chdir(folder):
        config = bertjax.load_config("tiny.py")
        bertjax.prepare(config)
        bertjax.train(config, "runs/tiny")
        text = (folder / "corpus.txt").read_text()
        (folder / "other.txt").write_text(text.replace("cat sees", "dog sees"))
        vocabulary = "prepared/tiny/tokenizer/vocab.txt"
        other = {"corpus": ("other.txt",), "prepared_dir": "prepared/other"}
        bertjax.prepare(config.replace(data=other, tokenizer={"vocab_file": vocabulary}))
        yield folder


@pytest.fixture
def run(library, tmp_path):
    """A copy of the run, to be spoiled."""
    shutil.copytree(library / "runs" / "tiny", tmp_path / "run")
    return epath.Path(tmp_path) / "run"


def longer(folder, **train):
    """The run's configuration for two steps more."""
    config = bertjax.load_config("tiny.py")
    train = {"steps": 4, **train}
    return config.replace(
        data={"prepared_dir": str(folder)}, train=train, optimizer={"restarts": (2,)}
    )


def spoil_meta(run, **changes):
    """Change or (with None) remove fields of the newest checkpoint's `meta`."""
    path = run / "checkpoints" / "2" / "meta" / "metadata"
    values = json.loads(path.read_text()) | changes
    del values[OWN]
    kept = {key: value for key, value in values.items() if value is not None}
    path.write_text(json.dumps(with_own_digest(kept)))


@pytest.mark.slow
def test_other_data_that_are_asked_for_are_written_down_in_the_checkpoint(library, run):
    before = json.loads((run / "checkpoints" / "2" / "meta" / "metadata").read_text())
    bertjax.train(longer("prepared/other", data_changes=(2,)), run)
    meta = json.loads((run / "checkpoints" / "4" / "meta" / "metadata").read_text())
    assert meta["data_sha256"] != before["data_sha256"]
    assert meta["data_changes"] == [
        {name: before[name] for name in ("data_sha256", "manifest_sha256")} | {"step": 2}
    ]
    assert meta["config"]["train"]["data_changes"] == [2]
    assert "other data from step 2 on" in (run / "log.txt").read_text()
    # It is asked for once: from here on these are its data, and the old ones are others.
    assert bertjax.train(longer("prepared/other"), run).step == 4
    with pytest.raises(UserError, match=r"--train\.data-changes 4"):
        bertjax.train(longer("prepared/tiny", data_changes=(2,)), run)


@pytest.mark.slow
def test_the_same_preparation_at_another_place_is_accepted(library, run, tmp_path):
    shutil.copytree("prepared/tiny", tmp_path / "moved")
    assert bertjax.train(longer(tmp_path / "moved"), run).step == 4


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["records", "sha256", "order"])
def test_an_edited_manifest_is_refused(library, run, tmp_path, entry):
    config = bertjax.load_config("tiny.py").replace(
        data={"num_shards": 2, "prepared_dir": str(tmp_path / "two")}
    )
    bertjax.prepare(config)
    manifest = tmp_path / "two" / "manifest.json"
    values = json.loads(manifest.read_text())
    facts = facts_of(config)
    if entry == "order":
        values["shards"].reverse()
    elif entry == "sha256":
        values["shards"][0]["sha256"] = "0" * 64
    else:
        values["counts"] = {}
    manifest.write_text(json.dumps(values))
    edited = facts_of(config)
    # Counts are for reading alone: the records are the same, and a line of the log says so.
    assert (difference(facts, edited) is None) == (entry == "records")
    assert facts["manifest_sha256"] != edited["manifest_sha256"]


def facts_of(config: Config):
    from bertjax.training.batch_source import prepared_source
    from bertjax.training.run_tokenizer import prepared_tokenizer

    return prepared_source(config, prepared_tokenizer(config)).facts


@pytest.mark.slow
def test_a_shard_in_the_place_of_another_is_noticed(library, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree("prepared/tiny", folder)
    config = bertjax.load_config("tiny.py").replace(data={"prepared_dir": str(folder)})
    before = facts_of(config)
    (shard,) = folder.glob("train-*")
    whole = np.fromfile(shard, np.uint8)
    records = json.loads((folder / "manifest.json").read_text())["shards"]
    (count,) = [entry["records"] for entry in records if entry["name"] == shard.name]
    # The same size and name, and each record whole.
    np.roll(whole.reshape(count, -1), 1, axis=0).tofile(shard)
    assert facts_of(config)["manifest_sha256"] == before["manifest_sha256"]
    assert difference(before, facts_of(config)).name == "all"


@pytest.mark.slow
def test_a_run_of_before_is_compared_by_its_manifest_or_says_that_it_is_not(library, run, caplog):
    spoil_meta(run, data_sha256=None)
    with pytest.raises(UserError, match=r"2: data, manifest_sha256: found"):
        bertjax.train(longer("prepared/other"), run)
    spoil_meta(run, manifest_sha256=None, tokenizer_fingerprint=None)
    with caplog.at_level(logging.INFO, "bertjax"):
        assert bertjax.train(longer("prepared/other"), run).step == 4
    assert "checkpoints/2 does not record its data, so they are not compared" in caplog.text


@pytest.mark.slow
def test_a_configuration_that_is_deleted_or_edited_does_not_free_its_fields(library, run):
    changed = longer("prepared/tiny").replace(seed=5)
    (run / "config.json").unlink()
    with pytest.raises(UserError, match=r"checkpoints/2/meta: seed: found 5, expected 0"):
        bertjax.train(changed, run)
    values = json.loads((library / "runs" / "tiny" / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(values | {"seed": 5}))
    with pytest.raises(UserError, match=r"checkpoints/2/meta: seed: found 5, expected 0"):
        bertjax.train(changed, run)


@pytest.mark.slow
def test_other_versions_are_said(library, run, caplog):
    versions = bertjax.training.checkpoint.versions() | {"jax": "0.1"}
    spoil_meta(run, versions=versions)
    bertjax.train(longer("prepared/tiny"), run)
    assert "checkpoints/2 was written with jax 0.1 (now " in caplog.text
    spoil_meta(run, versions=versions)
    caplog.clear()
    bertjax.evaluate(run)
    assert caplog.text.count("was written with jax 0.1 (now ") == 1


@pytest.mark.slow
def test_an_evaluation_is_of_the_own_data_unless_others_are_named(library, run, caplog):
    own = bertjax.saved_config(run)
    assert bertjax.evaluate(run).metrics
    with caplog.at_level(logging.INFO, "bertjax"):
        bertjax.evaluate(run, own.replace(data={"prepared_dir": "prepared/other"}))
    assert "evaluated on other data than those of its run: all" in caplog.text
    # The run's own folder, in which other data are now.
    spoil_meta(run, data_sha256={"all": "0" * 64})
    with pytest.raises(UserError, match=r"2: data, all: found \w{12}, expected 000000000000, on"):
        bertjax.evaluate(run)
    assert bertjax.evaluate(run, own.replace(train={"data_changes": (2,)})).metrics


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["fill_mask", "embed", "zero_shot", "export", "load", "init"])
def test_another_tokenizer_in_the_run_folder_is_refused(library, run, verb, tmp_path):
    vocabulary = run / "tokenizer" / "vocab.txt"
    words = vocabulary.read_text().splitlines()
    words[-2:] = reversed(words[-2:])
    vocabulary.write_text("\n".join(words) + "\n")
    calls = {
        "fill_mask": lambda: bertjax.fill_mask(run, "the [MASK]."),
        "embed": lambda: list(bertjax.embed(run, ["the cat."])),
        "zero_shot": lambda: bertjax.zero_shot(run, ["the cat."], ["good", "bad"]),
        "export": lambda: bertjax.export_model(run, tmp_path / "out", "huggingface"),
        "load": lambda: bertjax.load_tokenizer(run),
        "init": lambda: bertjax.finetune(
            bertjax.load_config("finetune.py").replace(init_from=str(run)), tmp_path / "tuned"
        ),
    }
    with pytest.raises(UserError, match=r"run/tokenizer: found tokenizer \w{12}, expected \w{12}"):
        calls[verb]()


def test_a_mixture_names_the_corpus_that_differs():
    record = {data_record.DATA: {"a": "1" * 64, "b": "2" * 64}}
    assert difference(record, {data_record.DATA: {"b": "2" * 64, "a": "1" * 64}}) is None
    other = {data_record.DATA: {"a": "1" * 64, "b": "3" * 64}}
    assert difference(record, other) == ("b", "3" * 12, "2" * 12)
    assert difference(record, {data_record.DATA: {"a": "1" * 64}}) == ("b", "none", "2" * 12)
    # Batches of a program of the user have no digests.
    assert difference(record, {}) == ("a", "none", "1" * 12)


@pytest.mark.parametrize("record,now,name", [
    ({"manifest_sha256": None}, {"manifest_sha256": None}, None),
    ({"manifest_sha256": None}, {"manifest_sha256": "2"}, "manifest_sha256"),
    ({"manifest_sha256": "2"}, {"manifest_sha256": None}, "manifest_sha256"),
    ({"training_rows_sha256": "2"}, {"training_rows_sha256": "2", "data_sha256": {"x": "1"}}, None),
    ({"training_rows_sha256": "2"}, {"training_rows_sha256": "3"}, "training_rows_sha256"),
    ({"data_sha256": 7}, {"data_sha256": {"all": "1"}}, "all"),
    ({}, {"data_sha256": {"all": "1"}}, None),
])  # fmt: skip
def test_records_of_other_forms_are_compared_where_they_tell_anything(record, now, name):
    found = difference(record, now)
    assert (found.name if found else None) == name
    assert is_known(record) == any(value is not None for value in record.values())


def test_changes_of_the_data_are_kept_from_checkpoint_to_checkpoint():
    one, two = {"data_sha256": {"all": "1"}}, {"data_sha256": {"all": "2"}}
    assert with_changes({}, one, 0) == one
    first = with_changes(one, two, 3)
    assert first["data_changes"] == [{"step": 3, "data_sha256": {"all": "1"}}]
    assert with_changes(first, two, 5) == first
    assert len(with_changes(first, one, 5)["data_changes"]) == 2
