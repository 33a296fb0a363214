import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from bertjax.data import pipeline
from bertjax.data.manifest import read_manifest, write_manifest
from bertjax.data.reader import ForeignRecords
from bertjax.errors import UserError
from tests.data.test_reader import foreign, manifest_of, written
from tests.factory import random_batch, small_config

FINGERPRINT = "f" * 64
STARTS = np.ones(64, bool)


@pytest.fixture
def config(tmp_path):
    written(epath.Path(tmp_path))
    return small_config(data={"prepared_dir": str(tmp_path)}, train={"batch_size": 4})


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        assert all(np.array_equal(x[name], y[name]) for name in y)


@pytest.mark.quick
def test_a_run_that_starts_at_a_step_gets_that_steps_batch(config):
    records = pipeline.open_split(config, config.data.prepared_dir, "train", FINGERPRINT)
    whole = take(pipeline.train_batches([records], config, STARTS, 0), 9)
    assert_same(whole[5:], take(pipeline.train_batches([records], config, STARTS, 5), 4))
    assert whole[0]["input_ids"].shape == (4, 16)
    assert {name: x.dtype.name for name, x in whole[0].items() if x.dtype != np.int32} == {
        "masked_lm_weights": "float32"
    }


@pytest.mark.parametrize("hosts", [2, 4])
def test_the_hosts_rows_make_up_the_global_batch(config, hosts):
    records = pipeline.open_split(config, config.data.prepared_dir, "train", FINGERPRINT)
    whole = take(pipeline.train_batches([records], config, STARTS, 3), 3)
    size = 4 // hosts
    parts = [
        take(pipeline.train_batches([records], config, STARTS, 3, rows=slice(host * size, (host + 1) * size)), 3)
        for host in range(hosts)
    ]
    joined = [{n: np.concatenate([part[n] for part in step]) for n in step[0]} for step in zip(*parts, strict=True)]
    assert_same(joined, whole)


def test_evaluation_covers_each_record_once_and_fills_up_with_empty_rows(config):
    records = pipeline.open_split(config, config.data.prepared_dir, "train", FINGERPRINT)
    batches = list(pipeline.eval_batches(records, config))
    assert len(batches) == 4
    together = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert together["input_mask"].any(axis=1).tolist() == [True] * 14 + [False] * 2
    every = records.read(np.arange(14))
    for name, values in every.items():
        assert np.array_equal(together[name][:14], values)
        assert not together[name][14:].any()
    assert len(list(pipeline.eval_batches(records, config, max_batches=2))) == 2


def test_hosts_evaluate_disjoint_rows_that_are_all_rows(config):
    records = pipeline.open_split(config, config.data.prepared_dir, "train", FINGERPRINT)
    parts = [list(pipeline.eval_batches(records, config, rows=slice(2 * h, 2 * h + 2))) for h in range(2)]
    assert sum(batch["input_mask"].any(axis=1).sum() for part in parts for batch in part) == 14


def test_files_of_other_scripts_train_through_the_same_pipeline(tmp_path):
    foreign(tmp_path / "train.tfrecord", random_batch(np.random.default_rng(1), 6))
    config = small_config(data={"prepared_dir": str(tmp_path)}, train={"batch_size": 3})
    records = pipeline.open_split(config, config.data.prepared_dir, "train", "any")
    assert isinstance(records, ForeignRecords)
    rows = np.concatenate(
        [batch["input_ids"] for batch in take(pipeline.train_batches([records], config, STARTS, 0), 2)]
    )
    assert np.array_equal(np.sort(rows, 0), np.sort(records.read(np.arange(6))["input_ids"], 0))


def test_a_host_without_rows_in_the_last_batch_evaluates_empty_ones(tmp_path):
    foreign(tmp_path / "valid.tfrecord", random_batch(np.random.default_rng(1), 5))
    config = small_config(data={"prepared_dir": str(tmp_path)}, train={"batch_size": 4})
    records = pipeline.open_split(config, config.data.prepared_dir, "validation", "any")
    last = list(pipeline.eval_batches(records, config, rows=slice(2, 4)))[-1]
    assert last["input_ids"].shape == (2, 16)
    assert not any(values.any() for values in last.values())


def test_a_process_that_leaves_amid_its_batches_ends_by_itself(config):
    """Without closing the stream it hangs or aborts, since TensorFlow waits for a read that Python no longer runs."""
    program = (
        "import sys; from bertjax.data import pipeline; from tests.factory import small_config; "
        "config = small_config(data={'prepared_dir': sys.argv[1]}, train={'batch_size': 50_000}); "
        f"batches = pipeline.train_batches([pipeline.open_split(config, sys.argv[1], 'train', {FINGERPRINT!r})], config, None, 0); "
        "next(batches); sys.exit(3)"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", program, config.data.prepared_dir]
    assert subprocess.run(command, cwd=root, timeout=300, capture_output=True).returncode == 3


def test_damage_found_while_training_reaches_the_user_as_it_is(config):
    folder = epath.Path(config.data.prepared_dir)
    records = pipeline.open_split(config, config.data.prepared_dir, "train", FINGERPRINT)
    content = bytearray((folder / "train-2.tfrecord").read_bytes())
    content[100] ^= 1
    (folder / "train-2.tfrecord").write_bytes(content)
    with pytest.raises(UserError, match=r"train-2\.tfrecord: record 0 is damaged"):
        take(pipeline.train_batches([records], config, STARTS, 0), 10)


@pytest.mark.parametrize("changes,fingerprint,message", [
    ({"data": {"max_seq_length": 12}}, FINGERPRINT, "max_seq_length: found 16 in the shards, expected 12"),
    ({"data": {"max_predictions_per_seq": 3}}, FINGERPRINT, "max_predictions_per_seq: found 4 in the shards, expected 3"),
    ({}, "e" * 64, "tokenizer: found ffffffffffff, expected eeeeeeeeeeee"),
    ({"model": {"vocab_size": 20}}, FINGERPRINT, r"found the id \d+, expected ids below model.vocab_size \(20\)"),
])  # fmt: skip
def test_shards_that_do_not_fit_the_run_are_refused(config, changes, fingerprint, message):
    data = {"prepared_dir": config.data.prepared_dir} | changes.get("data", {})
    with pytest.raises(UserError, match=message):
        pipeline.open_split(small_config(**changes | {"data": data}), config.data.prepared_dir, "train", fingerprint)


def test_an_id_outside_the_vocabulary_in_a_foreign_file_is_found_before_the_first_step(tmp_path):
    batch = random_batch(np.random.default_rng(1), 6)
    batch["masked_lm_ids"][5, 0] = 64
    foreign(tmp_path / "train.tfrecord", batch)
    with pytest.raises(UserError, match="found the id 64, expected ids below"):
        pipeline.open_split(small_config(), tmp_path, "train", "any")


def test_an_empty_or_missing_or_unfinished_folder_is_refused(tmp_path, config):
    for folder, message in [(tmp_path / "none", "no such folder"), (tmp_path / "empty", "no records")]:
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=message):
            pipeline.open_split(small_config(), folder, "train", FINGERPRINT)
    (tmp_path / "empty" / ".work").mkdir()
    with pytest.raises(UserError, match="an unfinished preparation"):
        pipeline.open_split(small_config(), tmp_path / "empty", "train", FINGERPRINT)
    with pytest.raises(UserError, match="split validation: found no records"):
        pipeline.open_split(config, config.data.prepared_dir, "validation", FINGERPRINT)
    assert read_manifest(epath.Path(tmp_path)) is not None
    write_manifest(epath.Path(tmp_path), manifest_of([]))
    with pytest.raises(UserError, match="split train: found no records"):
        pipeline.open_split(config, config.data.prepared_dir, "train", FINGERPRINT)
