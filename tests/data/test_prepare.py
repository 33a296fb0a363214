import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from etils import epath

from bertjax.config import Config, DataConfig, TokenizerConfig, to_dict
from bertjax.data.prepare import prepare
from bertjax.data.reader import OurShards
from bertjax.data.summary import summarise
from bertjax.data.tokenizer import load_tokenizer
from bertjax.errors import UserError


@pytest.fixture
def corpus(tmp_path):
    """Four files of documents; one document stands in two of them."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(300)]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in "abcd":
        documents = [
            "\n".join(" ".join(rng.choices(words, k=rng.randint(2, 15))) + "." for _ in range(rng.randint(1, 12)))
            for _ in range(60)
        ]
        (folder / f"{name}.txt").write_text("\n\n".join([*documents, "The same text.\nIn every file."]) + "\n")
    return folder


def config_of(corpus, seed=0, **data):
    defaults = {
        "corpus": (str(corpus),), "max_seq_length": 32, "max_predictions_per_seq": 5, "validation_fraction": 0.1,
        "dupe_factor": 3, "num_shards": 3, "workers": 1,
    }  # fmt: skip
    return Config(seed=seed, data=DataConfig(**defaults | data), tokenizer=TokenizerConfig(vocab_size=400))


def digests(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows_of(folder, manifest, split):
    records = OurShards(epath.Path(folder), manifest, split)
    return records.read(np.arange(len(records)))


def restored(batch):
    """The rows as they were before masking."""
    ids = batch["input_ids"].copy()
    used = batch["masked_lm_weights"] > 0
    row = np.broadcast_to(np.arange(len(ids))[:, None], used.shape)
    ids[row[used], batch["masked_lm_positions"][used]] = batch["masked_lm_ids"][used]
    return ids


def test_the_bytes_do_not_depend_on_workers_or_the_order_of_files(corpus, tmp_path):
    prepare(config_of(corpus), tmp_path / "one")
    prepare(config_of(corpus, workers=2), tmp_path / "two")
    names = [str(corpus / f"{name}.txt") for name in "dbca"]
    prepare(dataclasses.replace(config_of(corpus), data=dataclasses.replace(config_of(corpus).data, corpus=tuple(names))),
            tmp_path / "three")  # fmt: skip
    for name in "abcd":
        shutil.copy(corpus / f"{name}.txt", corpus / f"{ord('z') - ord(name)}.text")
        (corpus / f"{name}.txt").unlink()
    prepare(config_of(corpus), tmp_path / "four")
    found = digests(tmp_path / "one")
    assert len([name for name in found if name.endswith(".tfrecord")]) == 4
    assert found == digests(tmp_path / "two") == digests(tmp_path / "three") == digests(tmp_path / "four")


def test_splits_are_disjoint_and_cover_the_corpus_and_duplicates_are_dropped(corpus, tmp_path):
    config = config_of(corpus, dupe_factor=20)
    manifest = prepare(config, tmp_path / "out")
    tokenizer = load_tokenizer(tmp_path / "out" / "tokenizer")
    assert manifest.counts["duplicate_documents"] == 3
    assert manifest.counts["train_documents"] + manifest.counts["validation_documents"] == 241
    assert 10 <= manifest.counts["validation_documents"] <= 45
    words = {}
    for split in ("train", "validation"):
        batch = rows_of(tmp_path / "out", manifest, split)
        first = restored(batch)[:, 1:31]
        rows = np.flatnonzero(batch["segment_ids"].sum(1) > 0)
        words[split] = {tuple(first[i][first[i] > 4][:6]) for i in rows}
        assert (batch["input_ids"][:, 0] == tokenizer.cls_id).all()
        assert ((batch["input_ids"] == tokenizer.sep_id).sum(1) >= 2).all()
    assert not words["train"] & words["validation"]


def test_another_seed_masks_otherwise_and_splits_alike(corpus, tmp_path):
    a, b = prepare(config_of(corpus), tmp_path / "a"), prepare(config_of(corpus, seed=1), tmp_path / "b")
    assert a.counts == b.counts
    assert [s.sha256 for s in a.shards] != [s.sha256 for s in b.shards]


def test_dupe_factor_repeats_documents_with_other_masks(corpus, tmp_path):
    once = prepare(config_of(corpus, dupe_factor=1), tmp_path / "a")
    thrice = prepare(config_of(corpus, dupe_factor=3), tmp_path / "b")
    ratio = sum(s.records for s in thrice.shards) / sum(s.records for s in once.shards)
    assert ratio == pytest.approx(3, rel=0.1)
    batch = rows_of(tmp_path / "b", thrice, "train")
    assert len(np.unique(batch["input_ids"], axis=0)) > 0.99 * len(batch["input_ids"])


def test_the_unigram_entropy_is_that_of_the_held_out_tokens(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"x{i} x{i} y y\ny y x{i} x{i}" for i in range(40)) + "\n")
    manifest = prepare(config_of(path, validation_fraction=0.5), tmp_path / "out")
    assert 0.5 < manifest.validation_unigram_entropy < np.log(400)
    tokens = manifest.counts["validation_tokens"]
    assert tokens >= 8 * manifest.counts["validation_documents"]


def test_a_finished_folder_is_left_alone_and_a_changed_plan_is_refused(corpus, tmp_path):
    config, out = config_of(corpus), tmp_path / "out"
    first = prepare(config, out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert prepare(dataclasses.replace(config, data=dataclasses.replace(config.data, workers=2)), out) == first
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    with pytest.raises(UserError, match=r"made with data\.max_seq_length 32: found 40 now, expected the same settings"):
        prepare(config_of(corpus, max_seq_length=40), out)
    (corpus / "a.txt").write_text("Something else.\nAltogether.\n")
    with pytest.raises(UserError, match=r"made from .*a\.txt: found a source added, removed or changed since"):
        prepare(config, out)


def test_a_folder_with_other_files_is_not_written_into(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="found files that no preparation made"):
        prepare(config_of(corpus), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("text,message", [
    ("", r"a\.txt: found no text"),
    ("\x01\x02\n", "tokenizer: found no text to train on"),
    ("Only one document.\nOf two sentences.\n", "split (train|validation), of 1 documents: found no instance"),
])  # fmt: skip
def test_a_corpus_that_gives_nothing_is_refused(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        prepare(config_of(tmp_path / "a.txt", validation_fraction=0.2), tmp_path / "out")


def test_a_bad_file_is_named_from_a_worker_process(corpus, tmp_path):
    (corpus / "b.txt").write_bytes(b"good\nbad \xff\n")
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n")
    config = dataclasses.replace(config_of(corpus, workers=2), tokenizer=TokenizerConfig(vocab_file=str(vocabulary)))
    with pytest.raises(UserError, match=r"b\.txt, line 2: found the byte 0xff"):
        prepare(config, tmp_path / "out")


def start(config, out):
    """`prepare` in a process of its own, by the configuration's JSON."""
    code = (
        "import json, sys; from bertjax.config import Config, from_dict; from bertjax.data.prepare import prepare\n"
        "if __name__ == '__main__': prepare(from_dict(Config, json.loads(sys.argv[1])), sys.argv[2])"
    )
    return subprocess.Popen([sys.executable, "-c", code, json.dumps(to_dict(config)), str(out)], start_new_session=True)


def killed_and_restarted(config, tmp_path, moments):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    begin = time.perf_counter()
    assert start(config, whole).wait() == 0
    takes = time.perf_counter() - begin
    rng = random.Random(0)
    kills = 0
    for _ in range(moments):
        process = start(config, broken)
        try:
            process.wait(takes * rng.uniform(0.3, 1.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        unfinished = [p for p in broken.glob("*.tfrecord") if p.stat().st_size == 0]
        assert not unfinished
        if (broken / "manifest.json").exists() and rng.random() < 0.7:
            shutil.rmtree(broken)  # finished: begin anew, to be killed elsewhere
    assert start(config, broken).wait() == 0
    assert digests(whole) == digests(broken)
    return kills


def test_killed_and_started_again_it_gives_the_same_bytes(corpus, tmp_path):
    assert killed_and_restarted(config_of(corpus, dupe_factor=30), tmp_path, 4) > 0


@pytest.mark.slow
def test_killed_at_twenty_moments_with_two_workers_it_gives_the_same_bytes(corpus, tmp_path):
    assert killed_and_restarted(config_of(corpus, dupe_factor=100, workers=2), tmp_path, 20) > 5


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_keeps_whole_shards_and_finishes_when_there_is_room(corpus, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    config = config_of(corpus, dupe_factor=60)
    reference = prepare(config, tmp_path / "reference")
    room = sum(s.bytes for s in reference.shards) * 2 // 3 + 300_000
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)]).returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        with pytest.raises(UserError, match=r"\.tfrecord: cannot be written \(No space left on device\)"):
            prepare(config, disk / "out")
        whole = list((disk / "out").glob("*.tfrecord"))
        sizes = {s.name: s.bytes for s in reference.shards}
        assert whole
        assert all(p.stat().st_size == sizes[p.name] for p in whole)
        assert not list((disk / "out").glob("*.unfinished"))
        subprocess.run(["mount", "-o", f"remount,size={room * 4}", str(disk)], check=True)
        prepare(config, disk / "out")
        assert digests(disk / "out") == digests(tmp_path / "reference")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_summary_tells_the_rates_and_finds_damage(corpus, tmp_path):
    out = tmp_path / "out"
    prepare(config_of(corpus, dupe_factor=10), out)
    said = summarise(out)
    for phrase in ("train: ", "checksums good", "random next 5", "[MASK] 8", "predict: ", "lengths:"):
        assert phrase in said
    path = out / "train-00001-of-00003.tfrecord"
    content = bytearray(path.read_bytes())
    content[77] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-00001-of-00003\.tfrecord: found other bytes than were written"):
        summarise(out)
    with pytest.raises(UserError, match=r"found no manifest\.json"):
        summarise(tmp_path)
