import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from bertjax.data import pipeline
from bertjax.data.records.foreign_records import ForeignRecords
from bertjax.data.records.manifest import SPLITS, read_manifest, write_manifest
from bertjax.data.records.record_format import Schema
from bertjax.data.records.summary import summarize
from bertjax.errors import UserError
from bertjax.masking.long_words import divide_long_words
from bertjax.masking.selection import Vocabulary
from bertjax.masking.static import unmask
from tests.data.records.test_foreign_records import foreign
from tests.data.records.test_reader import manifest_of, written
from tests.factory import random_batch, small_config
from tests.waiting import LIMIT_SECONDS

FINGERPRINT = "f" * 64
STARTS = np.ones(64, bool)
ROOT = Path(__file__).resolve().parents[2]


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
        take(
            pipeline.train_batches(
                [records], config, STARTS, 3, row_indices=slice(host * size, (host + 1) * size)
            ),
            3,
        )
        for host in range(hosts)
    ]
    joined = [
        {n: np.concatenate([part[n] for part in step]) for n in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def test_evaluation_covers_each_record_once_and_fills_up_with_empty_rows(config):
    records = pipeline.open_split(config, config.data.prepared_dir, "train", FINGERPRINT)
    batches = list(pipeline.eval_batches(records, config))
    assert len(batches) == 4
    together = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert together["input_mask"].any(axis=1).tolist() == [True] * 14 + [False] * 2
    records_read = records.read(np.arange(14))
    for name, values in records_read.items():
        assert np.array_equal(together[name][:14], values)
        assert not together[name][14:].any()
    assert len(list(pipeline.eval_batches(records, config, max_batches=2))) == 2


def test_hosts_evaluate_disjoint_rows_that_are_all_rows(config):
    records = pipeline.open_split(config, config.data.prepared_dir, "train", FINGERPRINT)
    parts = [
        list(pipeline.eval_batches(records, config, row_indices=slice(2 * h, 2 * h + 2)))
        for h in range(2)
    ]
    assert sum(batch["input_mask"].any(axis=1).sum() for part in parts for batch in part) == 14


def test_files_of_other_scripts_train_through_the_same_pipeline(tmp_path):
    foreign(tmp_path / "train.tfrecord", random_batch(np.random.default_rng(1), 6))
    config = small_config(data={"prepared_dir": str(tmp_path)}, train={"batch_size": 3})
    records = pipeline.open_split(config, config.data.prepared_dir, "train", "any")
    assert isinstance(records, ForeignRecords)
    rows = np.concatenate(
        [
            batch["input_ids"]
            for batch in take(pipeline.train_batches([records], config, STARTS, 0), 2)
        ]
    )
    assert np.array_equal(np.sort(rows, 0), np.sort(records.read(np.arange(6))["input_ids"], 0))


def test_a_host_without_rows_in_the_last_batch_evaluates_empty_ones(tmp_path):
    foreign(tmp_path / "valid.tfrecord", random_batch(np.random.default_rng(1), 5))
    config = small_config(data={"prepared_dir": str(tmp_path)}, train={"batch_size": 4})
    records = pipeline.open_split(config, config.data.prepared_dir, "validation", "any")
    last = list(pipeline.eval_batches(records, config, row_indices=slice(2, 4)))[-1]
    assert last["input_ids"].shape == (2, 16)
    assert not any(values.any() for values in last.values())


@pytest.mark.slow
def test_a_process_that_exits_while_batches_are_read_ends_by_itself(config):
    """Without closing the stream it would hang or abort.

    TensorFlow waits for a read that Python no longer runs.
    """
    program = (
        "import sys; from bertjax.data import pipeline; from tests.factory import small_config; "
        "config = small_config(data={'prepared_dir': sys.argv[1]}, train={'batch_size': 50_000}); "
        f"batches = pipeline.train_batches([pipeline.open_split(config, sys.argv[1], 'train', {FINGERPRINT!r})], config, None, 0); "
        "next(batches); next(batches); pipeline._tensorflow().result(); next(batches); sys.exit(3)"
    )
    command = [sys.executable, "-c", program, config.data.prepared_dir]
    run = subprocess.run(command, cwd=ROOT, timeout=LIMIT_SECONDS, capture_output=True)
    assert run.returncode == 3


READ_AHEAD = """
import json, sys, threading
from bertjax.data import pipeline
from tests.factory import small_config
from tests.waiting import LIMIT_SECONDS

config = small_config(data={"prepared_dir": sys.argv[1]}, train={"batch_size": 4})
records = pipeline.open_split(config, sys.argv[1], "train", sys.argv[2])
TAKEN = 6
reads, read, read_ahead = [], records.read, threading.Event()

def counted(numbers):
    reads.append(numbers)
    if len(reads) > TAKEN:
        read_ahead.set()
    return read(numbers)

records.read = counted
batches = pipeline.train_batches([records], config, None, 3)
taken = [next(batches)]
print("tensorflow" in sys.modules)
taken.append(next(batches))
pipeline._tensorflow().result()
while len(taken) < TAKEN:
    taken.append(next(batches))
# More is read than was taken, and nobody asks for it any more.
print(read_ahead.wait(LIMIT_SECONDS))
print(json.dumps([batch["input_ids"].tolist() for batch in taken]))
"""


def test_the_first_batch_does_not_wait_for_tensorflow_and_later_ones_are_read_ahead_by_it(config):
    command = [sys.executable, "-c", READ_AHEAD, config.data.prepared_dir, FINGERPRINT]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported, read_ahead, taken = run.stdout.splitlines()
    assert (imported, read_ahead) == ("False", "True")
    records = pipeline.open_split(config, config.data.prepared_dir, "train", FINGERPRINT)
    expected = take(pipeline.train_batches([records], config, STARTS, 3), 6)
    assert json.loads(taken) == [batch["input_ids"].tolist() for batch in expected]


def test_damage_found_while_training_reaches_the_user_as_it_is(config):
    folder = epath.Path(config.data.prepared_dir)
    records = pipeline.open_split(config, config.data.prepared_dir, "train", FINGERPRINT)
    records.check_shards()
    # After the shards were compared, as when a disk fails.
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
        pipeline.open_split(
            small_config(**changes | {"data": data}), config.data.prepared_dir, "train", fingerprint
        )


def test_a_segment_outside_the_models_table_is_found_before_the_first_step(tmp_path):
    batch = random_batch(np.random.default_rng(1), 6)
    batch["segment_ids"][4, 3] = 2
    foreign(tmp_path / "train.tfrecord", batch)
    message = (
        r": segment_ids: found the segment 2, expected segments below model\.type_vocab_size \("
    )
    with pytest.raises(UserError, match=message):
        pipeline.open_split(small_config(), tmp_path, "train", "any")
    more = small_config(model={"type_vocab_size": 3})
    assert len(pipeline.open_split(more, tmp_path, "train", "any")) == 6


def test_pairs_need_a_model_of_two_segments(config):
    one = config.replace(model={"type_vocab_size": 1})
    with pytest.raises(
        UserError, match=r"found the segment 1, expected segments below model\.type"
    ):
        pipeline.open_split(one, config.data.prepared_dir, "train", FINGERPRINT)


def test_a_file_of_another_script_in_a_prepared_folder_is_not_left_out_in_silence(config):
    folder = epath.Path(config.data.prepared_dir)
    # A kill leaves such a file.
    (folder / "train-0.tfrecord.unfinished").write_bytes(b"")
    assert pipeline.open_split(config, folder, "train", FINGERPRINT)
    foreign(folder / "dev.tfrecord", random_batch(np.random.default_rng(1), 6))
    message = r"dev\.tfrecord: found a TFRecord file that manifest\.json does not name"
    with pytest.raises(UserError, match=message):
        pipeline.open_split(config, folder, "train", FINGERPRINT)
    with pytest.raises(UserError, match=message):
        summarize(folder)


def test_an_id_outside_the_vocabulary_in_a_foreign_file_is_found_before_the_first_step(tmp_path):
    batch = random_batch(np.random.default_rng(1), 6)
    batch["masked_lm_ids"][5, 0] = 64
    foreign(tmp_path / "train.tfrecord", batch)
    with pytest.raises(UserError, match="found the id 64, expected ids below"):
        pipeline.open_split(small_config(), tmp_path, "train", "any")


def test_an_empty_or_missing_or_unfinished_folder_is_refused(tmp_path, config):
    for folder, message in [
        (tmp_path / "none", "no such folder"),
        (tmp_path / "empty", "no records"),
    ]:
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


def test_damaged_records_are_skipped_counted_and_named_where_that_is_asked_for(config, caplog):
    folder = config.data.prepared_dir
    path = epath.Path(folder) / "train-2.tfrecord"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    config = small_config(
        data={"prepared_dir": folder, "skip_damaged": True}, train={"batch_size": 14}
    )
    records = pipeline.open_split(config, folder, "train", FINGERPRINT)
    first, second = take(pipeline.train_batches([records], config, STARTS, 0), 2)
    assert records.skipped == {5}
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 1 of 9 records are damaged and will be skipped; whether the others are those that "
        "were written cannot be told",
        f"{path}: record 0 is damaged and skipped; 1 so far",
    ]
    for batch in (first, second):
        (empty,) = np.flatnonzero(~batch["input_mask"].any(axis=1))
        assert not any(values[empty].any() for values in batch.values())


def test_long_words_of_rows_to_be_masked_in_the_step_are_divided_by_the_tokenizers_rule(config):
    folder = config.data.prepared_dir
    dynamic = small_config(
        data={"prepared_dir": folder, "dynamic_masking": True}, train={"batch_size": 14}
    )
    records = pipeline.open_split(dynamic, folder, "train", FINGERPRINT)
    starts = np.arange(64) % 7 == 0
    for limit in (0, 2):
        vocabulary = Vocabulary(4, (0, 1, 2, 3, 4), 64, max_word_pieces=limit)
        batches = pipeline.train_batches([records], dynamic, starts, 0, vocabulary=vocabulary)
        (batch,) = take(batches, 1)
        ids = batch["input_ids"]
        expected = divide_long_words(starts[ids], ids, vocabulary)
        assert np.array_equal(batch["word_starts"], expected)
        # With the first rule of words, as of earlier versions, none is divided.
        assert np.array_equal(expected, starts[ids]) == (limit == 0)


def test_rows_to_be_masked_in_the_step_come_as_they_were_with_the_beginnings_of_words(config):
    folder = config.data.prepared_dir
    dynamic = small_config(
        data={"prepared_dir": folder, "dynamic_masking": True}, train={"batch_size": 14}
    )
    records = pipeline.open_split(dynamic, folder, "train", FINGERPRINT)
    starts = np.arange(64) % 3 > 0
    (batch,) = take(pipeline.train_batches([records], dynamic, starts, 0), 1)
    assert set(batch) == {
        "input_ids",
        "input_mask",
        "segment_ids",
        "next_sentence_labels",
        "word_starts",
    }
    assert np.array_equal(batch["word_starts"], starts[batch["input_ids"]])
    masked = records.read(np.arange(14))
    ids = unmask(masked)["input_ids"]
    assert (ids != masked["input_ids"]).any()
    assert sorted(batch["input_ids"].tolist()) == sorted(ids.tolist())


def test_unmasked_rows_of_other_scripts_are_for_dynamic_masks(tmp_path):
    batch = random_batch(np.random.default_rng(1), 6)
    names = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
    for split in ("train", "dev"):
        foreign(tmp_path / f"{split}.tfrecord", batch, drop=names)
    static = small_config(data={"prepared_dir": str(tmp_path)}, train={"batch_size": 6})
    with pytest.raises(
        UserError,
        match="split train: found rows that are not masked, expected masked ones, or data.dynamic",
    ):
        pipeline.open_split(static, tmp_path, "train", "any")
    dynamic = static.replace(data={"dynamic_masking": True})
    records = pipeline.open_split(dynamic, tmp_path, "train", "any")
    (read,) = take(pipeline.train_batches([records], dynamic, STARTS, 0), 1)
    assert sorted(read["input_ids"].tolist()) == sorted(batch["input_ids"].tolist())
    # The held-out rows keep their masks, so that losses are comparable.
    with pytest.raises(
        UserError, match="split validation: found rows that are not masked, expected masked ones$"
    ):
        pipeline.open_split(dynamic, tmp_path, "validation", "any")


def test_masked_and_unmasked_corpora_are_mixed_without_masks(tmp_path):
    batch = random_batch(np.random.default_rng(1), 6)
    names = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
    for name, drop in (("unmasked", names), ("masked", ())):
        (tmp_path / name).mkdir()
        foreign(tmp_path / name / "train.tfrecord", batch, drop=drop)
    config = small_config(
        data={
            "mixture": (f"a={tmp_path / 'unmasked'}", f"b={tmp_path / 'masked'}"),
            "dynamic_masking": True,
        },
        train={"batch_size": 32},
    )
    corpora = [
        pipeline.open_split(config, tmp_path / name, "train", "any")
        for name in ("unmasked", "masked")
    ]
    rows = [
        {tuple(row) for row in ids.tolist()}
        for ids in (batch["input_ids"], unmask(batch)["input_ids"])
    ]
    for order in (corpora, corpora[::-1]):
        for read in take(pipeline.train_batches(order, config, STARTS, 0), 3):
            assert not [name for name in read if name.startswith("masked_lm")]
            for corpus, ids in zip(read["corpus_ids"][:, 0], read["input_ids"], strict=True):
                assert tuple(ids.tolist()) in rows[corpora.index(order[corpus])]


@pytest.fixture
def two_folders(tmp_path):
    """Make prepared folders `one` of 14 records and `two` of 6."""
    for name, sizes in (("one", (14,)), ("two", (6,))):
        (tmp_path / name).mkdir()
        written(epath.Path(tmp_path) / name, sizes)
    mixture = tuple(f"{name}={tmp_path / name}" for name in ("one", "two"))
    return small_config(
        data={"mixture": mixture, "mixture_weights": (1.0, 3.0)}, train={"batch_size": 64}
    )


def test_a_mixture_has_its_shares_and_says_where_each_row_is_from(two_folders, tmp_path):
    corpora = [
        pipeline.open_split(two_folders, tmp_path / name, "train", FINGERPRINT)
        for name in ("one", "two")
    ]
    batches = take(pipeline.train_batches(corpora, two_folders, STARTS, 0), 20)
    rows = [
        [tuple(row) for row in records.read(np.arange(len(records)))["input_ids"]]
        for records in corpora
    ]
    which = np.concatenate([batch["corpus_ids"][:, 0] for batch in batches])
    ids = np.concatenate([batch["input_ids"] for batch in batches])
    assert which.mean() == pytest.approx(0.75, abs=0.05)
    assert all(tuple(row) in rows[corpus] for corpus, row in zip(which, ids, strict=True))
    parts = [
        take(
            pipeline.train_batches(
                corpora, two_folders, STARTS, 7, row_indices=slice(32 * h, 32 * h + 32)
            ),
            2,
        )
        for h in range(2)
    ]
    joined = [
        {n: np.concatenate([part[n] for part in step]) for n in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, batches[7:9])


def test_without_weights_a_mixture_goes_by_size_to_an_exponent(two_folders):
    def share(exponent):
        config = small_config(
            data={"mixture": two_folders.data.mixture, "mixture_exponent": exponent}
        )
        quotas = pipeline.mixture_quotas(config, [14, 6])
        return quotas[0] / quotas.sum()

    assert share(1.0) == pytest.approx(0.7, abs=1e-3)
    assert share(0.0) == pytest.approx(0.5, abs=1e-3)
    assert share(0.7) == pytest.approx(14**0.7 / (14**0.7 + 6**0.7), abs=1e-3)


@pytest.mark.parametrize("made,asked,message", [
    ({"schemas": dict.fromkeys(SPLITS, Schema(16, 0))}, {}, "split train: found rows that are not masked, expected masked ones, or data.dynamic_masking True"),
    ({"schemas": dict.fromkeys(SPLITS, Schema(16, 4, sentences=3, packed=True))}, {}, "sentences: found 3 in the shards, expected 1 as data.max_sequences_per_row"),
    ({}, {"masking": "span"}, "masking: found whole_word in the shards, expected span as data.masking says"),
    ({}, {"mask_shares": (1, 0, 0)}, r"mask_shares: found \[0.8, 0.1, 0.1\] in the shards, expected \[1.0, 0.0, 0.0\] as data.mask_shares says"),
    ({}, {"sentence_objective": "none"}, "sentence_objective: found next_sentence in the shards, expected none"),
])  # fmt: skip
def test_shards_made_for_another_purpose_are_refused(tmp_path, made, asked, message):
    write_manifest(epath.Path(tmp_path), manifest_of([], **made))
    with pytest.raises(UserError, match=message):
        pipeline.open_split(small_config(data=asked), tmp_path, "train", FINGERPRINT)
