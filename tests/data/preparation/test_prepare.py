import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.preparation.prepare import prepare
from bertjax.data.preparation.unit_files import is_whole
from bertjax.data.records.summary import summarize
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.errors import UserError
from bertjax.masking.static import unmask
from bertjax.storage import LockError, folder_lock
from bertjax.storage.holder import Host, this_process
from tests.data.corpus.formats.test_archives import write as write_archive
from tests.data.preparation.corpora import config_of, digests, rows_of
from tests.data.tokenizers.family_folders import eurobert, gpt_bert
from tests.data.tokenizers.models import content as sentencepiece_model
from tests.interrupted_prepare import start
from tests.waiting import until


@pytest.mark.parametrize("shards", [3, 40])
def test_the_bytes_do_not_depend_on_workers_or_the_order_of_files(corpus, tmp_path, shards):
    config = config_of(corpus, num_shards=shards)
    prepare(config, tmp_path / "one")
    prepare(with_workers(config, 2), tmp_path / "two")
    names = tuple(str(corpus / f"{name}.txt") for name in "dbca")
    prepare(config.replace(data={"corpus": names}), tmp_path / "three")
    for name in "abcd":
        shutil.copy(corpus / f"{name}.txt", corpus / f"{ord('z') - ord(name)}.text")
        (corpus / f"{name}.txt").unlink()
    prepare(config, tmp_path / "four")
    first = digests(tmp_path / "one")
    heldout_shards = max(1, round(shards * config.data.validation_fraction))
    assert len([name for name in first if name.endswith(".tfrecord")]) == shards + heldout_shards
    assert (
        first
        == digests(tmp_path / "two")
        == digests(tmp_path / "three")
        == digests(tmp_path / "four")
    )


def test_a_document_that_stands_in_several_files_counts_once(corpus, tmp_path):
    counts = prepare(config_of(corpus), tmp_path / "out").counts
    assert counts["duplicate_documents"] == 3
    assert counts["train_documents"] + counts["validation_documents"] == 241
    assert 10 <= counts["validation_documents"] <= 45


def test_an_archive_gives_the_bytes_of_its_files_and_nulls_are_counted(corpus, tmp_path):
    manifest = prepare(config_of(corpus), tmp_path / "files")
    assert "null_documents" not in manifest.counts
    write_archive(
        corpus, ".zip", {f"{name}.txt": (corpus / f"{name}.txt").read_bytes() for name in "ab"}
    )
    for name in "ab":
        (corpus / f"{name}.txt").unlink()
    write_archive(corpus, ".tgz", {"n.jsonl": b'{"text": null}\n' * 3 + b'{"text": ""}\n'})
    (corpus / "corpus.tgz").rename(tmp_path / "n.tgz")
    with pytest.raises(UserError, match=r"n\.tgz: found no text"):
        prepare(config_of(tmp_path / "n.tgz"), tmp_path / "none")
    lines = b'{"text": null}\n' * 3 + b'{"text": "The same text. In every file."}\n'
    write_archive(corpus, ".tgz", {"n.jsonl": lines})
    archived = prepare(config_of(corpus), tmp_path / "archives")
    assert digests(tmp_path / "archives") == digests(tmp_path / "files")
    assert archived.counts["null_documents"] == 3
    assert archived.counts["duplicate_documents"] == manifest.counts["duplicate_documents"] + 1


def test_real_text_has_the_papers_rates_and_the_same_bytes_from_two_workers(shared_data, tmp_path):
    texts = shared_data / "text" / "en"
    data = DataConfig(
        corpus=(str(texts / "d2l_en.txt"), str(texts / "wikitext2.valid.txt")),
        max_seq_length=128, max_predictions_per_seq=20, dupe_factor=2, num_shards=3, workers=1, masking="token",
    )  # fmt: skip
    config = Config(data=data, tokenizer=TokenizerConfig(vocab_size=2000, train_characters=300_000))
    manifest = prepare(config, tmp_path / "one")
    batch, before = (f(rows_of(tmp_path / "one", manifest, "train")) for f in (dict, unmask))
    tokenizer, before = load_tokenizer(tmp_path / "one" / "tokenizer"), before["input_ids"]
    ordinary = (batch["input_mask"] > 0) & ~np.isin(before, tokenizer.special_ids)
    used = batch["masked_lm_weights"] > 0
    n = used.sum()
    assert n > 100_000
    full = ordinary.sum(1) <= 130  # 15 % of more would meet max_predictions_per_seq
    assert used[full].sum() / ordinary[full].sum() == pytest.approx(0.15, abs=0.002)
    assert used.sum(1).max() <= 20
    row = np.broadcast_to(np.arange(len(before))[:, None], used.shape)[used]
    positions, labels = batch["masked_lm_positions"][used], batch["masked_lm_ids"][used]
    assert ordinary[row, positions].all()
    unchosen = ordinary.copy()
    unchosen[row, positions] = False
    assert np.array_equal(batch["input_ids"][unchosen], before[unchosen])
    shown = batch["input_ids"][row, positions]
    tolerance = 4 * np.sqrt(0.25 / n)
    assert (shown == tokenizer.mask_id).mean() == pytest.approx(0.8, abs=tolerance)
    assert (shown == labels).mean() == pytest.approx(0.1, abs=tolerance)
    random_ids = shown[(shown != tokenizer.mask_id) & (shown != labels)]
    assert not np.isin(random_ids, tokenizer.special_ids).any()
    assert len(np.unique(random_ids)) > 0.98 * (tokenizer.vocab_size - 5)
    # Half of the pairs with a next sentence. Without one is A at the end of a document.
    pairs = manifest.counts["train_pairs_with_next"]
    share = manifest.counts["train_random_next"] / pairs
    assert share == pytest.approx(0.5, abs=3 * np.sqrt(0.25 / pairs))
    assert 0 < manifest.counts["train_pairs_without_next"] < 0.2 * pairs
    labels = batch["next_sentence_labels"].sum()
    assert labels == share * pairs + manifest.counts["train_pairs_without_next"]

    again = TokenizerConfig(vocab_file=str(tmp_path / "one" / "tokenizer" / "vocab.txt"))
    prepare(Config(data=dataclasses.replace(data, workers=2), tokenizer=again), tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def named_documents(tmp_path, name, numbers, **data):
    """Prepare documents that each repeat a word of their own; return those of each split."""
    vocabulary = tmp_path / "vocab.txt"
    words = [f"doc{n}" for n in range(400)]
    vocabulary.write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, "of", "."])
    )
    path = tmp_path / f"{name}.txt"
    path.write_text("\n\n".join("\n".join([f"doc{n} of doc{n}."] * 4) for n in numbers))
    config = config_of(path, max_seq_length=64, max_predictions_per_seq=10, **data)
    config = dataclasses.replace(config, tokenizer=TokenizerConfig(vocab_file=str(vocabulary)))
    manifest = prepare(config, tmp_path / name)
    ids = [
        np.unique(unmask(rows_of(tmp_path / name, manifest, split))["input_ids"])
        for split in ("train", "validation")
    ]
    return [
        set((split_ids[(split_ids >= 5) & (split_ids < 405)] - 5).tolist()) for split_ids in ids
    ]


def test_splits_are_disjoint_and_cover_the_corpus_and_stay_when_it_grows(tmp_path):
    train, heldout = named_documents(tmp_path, "few", range(100, 300))
    assert not train & heldout
    assert train | heldout == set(range(100, 300))
    assert 5 <= len(heldout) <= 40
    more_train, more_heldout = named_documents(tmp_path, "many", reversed(range(400)))
    assert not more_train & more_heldout
    assert train < more_train
    assert heldout < more_heldout


def test_another_seed_masks_otherwise_and_splits_alike(corpus, tmp_path):
    a, b = (
        prepare(config_of(corpus), tmp_path / "a"),
        prepare(config_of(corpus, seed=1), tmp_path / "b"),
    )
    assert a.counts["train_random_next"] != b.counts["train_random_next"]
    documents = ("documents", "sentences", "tokens")
    for name in [f"{split}_{what}" for split in ("train", "validation") for what in documents]:
        assert a.counts[name] == b.counts[name]
    assert [s.sha256 for s in a.shards] != [s.sha256 for s in b.shards]


def test_dupe_factor_repeats_documents_with_other_masks(corpus, tmp_path):
    once = prepare(config_of(corpus, dupe_factor=1), tmp_path / "a")
    thrice = prepare(config_of(corpus, dupe_factor=3), tmp_path / "b")
    ratio = sum(s.records for s in thrice.shards) / sum(s.records for s in once.shards)
    assert ratio == pytest.approx(3, rel=0.1)
    batch = rows_of(tmp_path / "b", thrice, "train")
    assert len(np.unique(batch["input_ids"], axis=0)) > 0.99 * len(batch["input_ids"])


def test_a_folder_made_anew_by_the_same_process_has_nothing_of_before(corpus, tmp_path):
    """Neither its tokenizer nor its documents, which the process kept in memory."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word", *map("##{}".format, range(10))]
    vocabularies = []
    for number, pieces in enumerate((names, names[:6] + names[:5:-1])):
        vocabularies.append(tmp_path / f"vocab{number}.txt")
        vocabularies[-1].write_text("\n".join(pieces))
    configs = [
        dataclasses.replace(config_of(corpus), tokenizer=TokenizerConfig(vocab_file=str(path)))
        for path in vocabularies
    ]
    prepare(configs[0], tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    prepare(configs[1], tmp_path / "out")
    prepare(configs[1], tmp_path / "fresh")
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_a_place_that_cannot_be_a_folder_is_named(corpus, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"file.*: cannot be written \(Not a directory\)"):
            prepare(config_of(corpus), out)


@pytest.mark.parametrize("objective", ["none", "sentence_order"])
def test_one_document_and_nothing_held_out_is_enough_where_no_other_is_needed(tmp_path, objective):
    (tmp_path / "a.txt").write_text("Only one document.\nOf three.\nSentences in all.\n")
    config = config_of(tmp_path / "a.txt", validation_fraction=0.0, sentence_objective=objective)
    manifest = prepare(config, tmp_path / "out")
    assert sum(shard.records for shard in manifest.shards) >= 3


@pytest.mark.parametrize("text,message", [
    ("", r"a\.txt: found no text"),
    ("\x01\x02\n", r"a\.txt: found no text"),
    ("Only one document.\nOf two sentences.\n", r"data\.corpus: found 1 document .*expected 2 to train on"),
])  # fmt: skip
def test_a_corpus_that_gives_nothing_is_refused(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        prepare(config_of(tmp_path / "a.txt", validation_fraction=0.2), tmp_path / "out")


def test_a_bad_file_is_named_from_a_worker_process(corpus, tmp_path):
    (corpus / "b.txt").write_bytes(b"good\nbad \xff\n")
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n")
    config = dataclasses.replace(
        config_of(corpus, workers=2), tokenizer=TokenizerConfig(vocab_file=str(vocabulary))
    )
    with pytest.raises(UserError, match=r"b\.txt, line 2: found the byte 0xff"):
        prepare(config, tmp_path / "out")


def with_workers(config, workers):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))


def check_kills(config, tmp_path, kills):
    """Kill a preparation at so many random writes, starting it again each time."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(with_workers(config, 1), whole)
    writes = int(process.communicate()[0])
    assert process.returncode == 0
    # Each process counts its own writes. From an empty folder one of them comes that far.
    reached = writes // config.data.workers // 2 if config.data.workers > 1 else writes
    rng = random.Random(0)
    killed = 0
    while killed < kills:
        action = rng.choice(["kill", "kill-after"])
        process = start(config, broken, action, count=rng.randint(1, reached))
        process.communicate()
        assert process.returncode in (0, -signal.SIGKILL)
        killed += process.returncode != 0
        assert not [p for p in broken.glob("*.tfrecord") if p.stat().st_size == 0]
        if process.returncode == 0:
            shutil.rmtree(broken)  # finished: begin anew, to be killed elsewhere
    process = start(config, broken)
    process.communicate()
    assert process.returncode == 0
    assert digests(whole) == digests(broken)


def test_killed_and_started_again_it_gives_the_same_bytes(corpus, tmp_path):
    check_kills(config_of(corpus), tmp_path, 5)


def test_a_killed_parent_takes_its_workers_along(corpus, tmp_path):
    config, out = config_of(corpus, workers=2), tmp_path / "out"
    process = start(config, out, "hold", ".tfrecord", 1)
    # Both workers are in the middle of a shard.
    until(lambda: len(list(tmp_path.glob("out.held-*"))) == 2, process=process)
    assert len(group_members(process.pid)) > 2
    process.kill()  # this one alone, not its group
    process.communicate()
    until(lambda: not group_members(process.pid), expected="no worker outlives its parent")
    assert not list(out.glob("*.tfrecord"))
    prepare(config, out)
    prepare(with_workers(config, 1), tmp_path / "whole")
    assert digests(out) == digests(tmp_path / "whole")


def group_members(group):
    """List the living processes of a process group."""
    listing = subprocess.run(
        ["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    return [
        line
        for line in listing.splitlines()
        if line.split()[0] == str(group) and line.split()[1][0] != "Z"
    ]


def held_in(folder):
    return [p for p in folder.parent.iterdir() if p.name.startswith(f"{folder.name}.held-")]


def test_a_second_start_is_refused_while_the_first_lives_and_goes_on_after_its_death(
    corpus, tmp_path, caplog
):
    config, out = config_of(corpus, num_shards=8), tmp_path / "out"
    # With its second shard written, which has no name yet.
    process = start(config, out, "hold", ".tfrecord", 2)
    try:
        until(lambda: held_in(out), process=process)
        before = digests(out)
        refusal = rf"out: found bertjax prepare \(process {process.pid} on .*\) at work on it"
        for _ in range(2):
            with pytest.raises(UserError, match=refusal):
                prepare(config, out)
        assert digests(out) == before
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert [p for p in out.iterdir() if p.name.endswith(".unfinished")]
    manifest = prepare(config, out)
    assert f"taken over from bertjax prepare (process {process.pid}" in caplog.text
    assert prepare(config, tmp_path / "other") == manifest
    assert digests(out) == digests(tmp_path / "other")
    # Nothing is left of the lock or of what was being written.
    assert sorted(p.name for p in out.rglob("*")) == sorted(p.name for p in (tmp_path / "other").rglob("*"))  # fmt: skip


def test_a_finished_folder_may_be_opened_by_two_at_once(corpus, tmp_path):
    config, out = config_of(corpus), tmp_path / "out"
    manifest = prepare(config, out)
    with folder_lock(epath.Path(out), "prepare"):
        assert prepare(config, out) == manifest
        # As after a kill right after the manifest: the other one removes it.
        (out / ".work").mkdir()
        assert prepare(config, out) == manifest
    assert (out / ".work").exists()
    assert prepare(config, out) == manifest
    assert not (out / ".work").exists()


def test_who_has_lost_the_folder_to_another_removes_and_writes_nothing(corpus, tmp_path):
    config, out = config_of(corpus), tmp_path / "out"
    others = this_process("prepare", Host("elsewhere", "")).to_bytes()

    @contextlib.contextmanager
    def runner():
        def run(stage, items, progress):
            if stage == "tokenize":
                (out / ".bertjax-lock").write_bytes(others)
                (out / ".work" / "of another").mkdir()
            for item in items:
                item.run()

        yield run

    with pytest.raises(LockError, match="found bertjax prepare .process .* on elsewhere"):
        prepare(config, out, runner=runner())
    assert (out / ".bertjax-lock").read_bytes() == others
    assert (out / ".work" / "of another").exists()
    assert not list(out.rglob("done.json"))
    assert not list(out.rglob("*.tfrecord"))


@pytest.mark.slow
def test_of_two_starts_at_once_one_prepares_and_the_other_ends_in_a_line(corpus, tmp_path):
    out = tmp_path / "out"
    words = ["-m", "bertjax.cli.main", "prepare", "tiny", f"--data.corpus={corpus}", "--tokenizer.vocab-size=400",
             "--data.num-shards=8", "--data.workers=2", f"--output-dir={out}"]  # fmt: skip
    pairs = []
    for _ in range(5):
        shutil.rmtree(out, ignore_errors=True)
        two = [subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
               for _ in range(2)]  # fmt: skip
        said = [process.communicate()[1] for process in two]
        statuses = sorted(process.returncode for process in two)
        # The second may come when the first is done.
        assert statuses in ([0, 2], [0, 0]), said
        for process, errors in zip(two, said, strict=True):
            if process.returncode == 2:
                assert [line[:9] for line in errors.splitlines()] == ["bertjax: "], errors
        pairs.append(digests(out))
    assert all(pair == pairs[0] for pair in pairs)


@pytest.mark.slow
def test_killed_at_twenty_moments_with_two_workers_it_gives_the_same_bytes(corpus, tmp_path):
    check_kills(config_of(corpus, num_shards=8, workers=2), tmp_path, 20)


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts `tmp_path/disk` with a number of bytes, or resizes it."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def resize(size, remount=""):
        command = ["mount", "-t", "tmpfs", "-o", f"{remount}size={size}", "tmpfs", str(disk)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this machine does not let tests mount a small disk")
        return disk

    yield resize
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("share,named,workers", [
    (0.005, r"sample/\S*\.jsonl", 1),
    (0.03, r"part-\d+", 1),
    (0.6, r"\.tfrecord", 1),
    (0.9, r"\.tfrecord", 2),
])  # fmt: skip
def test_a_full_disk_keeps_whole_shards_and_finishes_when_there_is_room(
    corpus, tmp_path, small_disk, share, named, workers
):
    config = config_of(corpus, dupe_factor=5, workers=workers)
    reference = prepare(config_of(corpus, dupe_factor=5), tmp_path / "reference")
    if named.startswith("part"):  # a sample for the vocabulary would take more room before
        vocabulary = TokenizerConfig(
            vocab_file=str(tmp_path / "reference" / "tokenizer" / "vocab.txt")
        )
        config = dataclasses.replace(config, tokenizer=vocabulary)
    sizes = {s.name: s.bytes for s in reference.shards}
    # And a page for the lock.
    disk = small_disk(int(sum(sizes.values()) * share) + 4096)
    with pytest.raises(UserError, match=rf"{named}: cannot be written \(No space left on device\)"):
        prepare(config, disk / "out")
    whole = list((disk / "out").glob("*.tfrecord"))
    assert bool(whole) == (share > 0.5)
    assert all(p.stat().st_size == sizes[p.name] for p in whole)
    assert not [p for p in (disk / "out").rglob("*.unfinished") if p.parent.name != "tokenizer"]
    # Each has the files that it names; of others there are whole parts at most.
    for unit in (p.parent for p in (disk / "out" / ".work").glob("*/done.json")):
        assert is_whole(epath.Path(unit))
    times = {p: p.stat().st_mtime_ns for p in whole}
    small_disk(sum(sizes.values()) * 10, "remount,")
    prepare(config, disk / "out")
    assert digests(disk / "out") == digests(tmp_path / "reference")
    assert {p: p.stat().st_mtime_ns for p in whole} == times


def test_the_summary_gives_the_rates_and_finds_damage(corpus, tmp_path):
    out = tmp_path / "out"
    prepare(config_of(corpus, dupe_factor=10), out)
    summary = summarize(out)
    for phrase in (
        "train: ",
        "checksums good",
        "random next 5",
        "random of the pairs with a next sentence",
        "[MASK] 8",
        "predict: ",
        "ids in a row:",
        "top tokens: ",
    ):
        assert phrase in summary
    path = out / "train-00001-of-00003.tfrecord"
    content = bytearray(path.read_bytes())
    content[77] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"train-00001-of-00003\.tfrecord: found other bytes than were written"
    ):
        summarize(out)
    manifest = json.loads((out / "manifest.json").read_text())
    for shard in manifest["shards"]:
        del shard["sha256"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"train-00001-of-00003.*\(record 0 is damaged\)"):
        summarize(out)
    content[77] ^= 1
    path.write_bytes(content)
    assert "the manifest has no checksums, those of the records are good" in summarize(out)
    with pytest.raises(UserError, match=r"found no manifest\.json"):
        summarize(corpus)


def test_other_scripts_and_lower_case_give_the_same_rows_from_json_lines_and_the_bert_format(
    tmp_path,
):
    rng = random.Random(0)
    hindi = ["दिन", "घर", "माँ", "गाँव", "नदी", "शहर", "रात"]
    small = ["cat", "mat", "hills", "dogs", "ran", "warm"]
    documents = []
    for words, stop in [(hindi, "।"), (small, ".")] * 30:
        documents.append([" ".join(rng.choices(words, k=8)) + stop for _ in range(6)])
    texts = tmp_path / "a.txt"
    texts.write_text("\n\n".join("\n".join(sentences) for sentences in documents))
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n".join(json.dumps({"text": " ".join(s)}) for s in documents))
    by_line = prepare(config_of(texts), tmp_path / "texts")
    found = prepare(config_of(lines), tmp_path / "lines")
    assert by_line.shards == found.shards
    assert by_line.counts == found.counts
    labels = rows_of(tmp_path / "lines", found, "train")["next_sentence_labels"]
    assert 0.3 < labels.mean() < 0.7


def test_the_documents_that_fill_a_split_are_the_same_for_any_files_workers_and_shards(tmp_path):
    train, heldout = named_documents(tmp_path, "few", range(5))
    assert (len(train), len(heldout)) == (3, 2)
    for name, order in (("turned", [4, 3, 2, 1, 0]), ("copies", [0, 3, 1, 2, 4, 0, 0, 3])):
        assert named_documents(tmp_path, name, order) == [train, heldout]
    settings = {"num_shards": 1, "workers": 2}
    assert named_documents(tmp_path, "shards", range(5), **settings) == [train, heldout]
    # What fills the held-out split of more documents was not trained on before.
    more_train, more_heldout = named_documents(tmp_path, "more", range(7))
    assert train < more_train | heldout
    assert not train & more_heldout


@pytest.mark.parametrize("ending", ["txt", "jsonl"])
def test_one_book_has_held_out_stretches_where_it_is_cut(tmp_path, ending):
    sentences = [f"Sentence {n} of the book number {n % 7}." for n in range(400)]
    text = "\n".join(sentences)
    if ending == "jsonl":
        text = json.dumps({"text": " ".join(sentences)})
    path = tmp_path / f"a.{ending}"
    path.write_text(text)
    manifest = prepare(config_of(path, split_documents=500), tmp_path / "out")
    counts = manifest.counts
    assert counts["documents_read"] == 1
    assert counts["train_documents"] + counts["validation_documents"] == pytest.approx(26, abs=3)
    assert counts["validation_documents"] >= 2
    assert counts["train_sentences"] + counts["validation_sentences"] == 400
    assert counts["train_largest_document_tokens"] < 300


def of_tokenizer(corpus, folder, **data):
    """A configuration with the tokenizer of a folder."""
    tokenizer = TokenizerConfig(vocab_file=str(folder / "tokenizer.json"))
    return dataclasses.replace(config_of(corpus, **data), tokenizer=tokenizer)


@pytest.mark.parametrize("make,options", [
    (gpt_bert, {"max_sequences_per_row": 4}), (eurobert, {"cross_documents": True}),
])  # fmt: skip
def test_rows_of_a_tokenizer_without_an_end_have_none_and_begin_each_text(
    corpus, tmp_path, make, options
):
    folder = make(tmp_path / "x")
    data = {"max_seq_length": 64, "max_predictions_per_seq": 10, "sentence_objective": "none"}
    manifest = prepare(of_tokenizer(corpus, folder, **data, **options), tmp_path / "out")
    saved = load_tokenizer(tmp_path / "out" / "tokenizer")
    assert saved.layout == read_tokenizer_folder(folder).layout
    assert (saved.layout.before, saved.layout.after) == ((saved.cls_id,), ())
    rows = unmask(rows_of(tmp_path / "out", manifest, "train"))
    ids, mask = rows["input_ids"], rows["input_mask"]
    begins = ids[mask == 1] == saved.cls_id
    assert (ids[:, 0] == saved.cls_id).all()
    assert not (ids[mask == 1] == saved.sep_id).any()
    assert begins.sum() > len(ids)  # rows have several texts
    if "pack_ids" in rows:
        assert np.array_equal(begins, rows["position_ids"][mask == 1] == 0)


def test_pairs_are_those_of_the_tokenizer_and_need_a_token_between_texts(corpus, tmp_path):
    folder = gpt_bert(tmp_path / "x", pair="<s> $A $B")
    message = "data.sentence_objective: found next_sentence, and a tokenizer that puts no token"
    with pytest.raises(UserError, match=message):
        prepare(of_tokenizer(corpus, folder), tmp_path / "out")
    config = of_tokenizer(corpus, gpt_bert(tmp_path / "x", pair="<s> $A <s> $B"))
    manifest = prepare(config, tmp_path / "out")
    saved = load_tokenizer(tmp_path / "out" / "tokenizer")
    rows = unmask(rows_of(tmp_path / "out", manifest, "train"))
    ids, mask = rows["input_ids"], rows["input_mask"]
    assert ((ids == saved.cls_id).sum(axis=1) == 2).all()
    assert not (ids == saved.sep_id).any()
    # The file gives both texts the same segment.
    assert not rows["segment_ids"].any()
    assert mask.sum(axis=1).max() == 32
    gpt_bert(tmp_path / "x", single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1")
    with pytest.raises(UserError, match="found other entries, or other tokens around texts, in"):
        prepare(config, tmp_path / "out")


def test_a_model_that_other_programs_would_read_otherwise_is_refused_before_the_work(
    corpus, tmp_path
):
    (tmp_path / "words.model").write_bytes(sentencepiece_model("word"))
    tokenizer = TokenizerConfig(kind="unigram", vocab_file=str(tmp_path / "words.model"))
    config = dataclasses.replace(config_of(corpus), tokenizer=tokenizer)
    for _ in range(2):  # the second time nothing is there that would be taken for a checked one
        with pytest.raises(UserError, match=r"words\.model: found a SentencePiece model of"):
            prepare(config, tmp_path / "out")
        assert not (tmp_path / "out" / "tokenizer").exists()
