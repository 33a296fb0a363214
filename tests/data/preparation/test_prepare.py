import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import textwrap

import numpy as np
import pytest
from etils import epath

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.corpus.sentences import describe_doubts
from bertjax.data.preparation.prepare import prepare
from bertjax.data.records.reader import PreparedRecords
from bertjax.data.records.summary import summarize
from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.errors import UserError
from bertjax.masking.static import unmask
from tests.data.corpus.formats.test_archives import write as write_archive
from tests.data.tokenizers.models import content as sentencepiece_model
from tests.interrupted_prepare import start
from tests.waiting import until


@pytest.fixture
def corpus(tmp_path):
    """Write four files of documents, with one document in all of them."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(300)]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in "abcd":
        documents = [
            "\n".join(
                " ".join(rng.choices(words, k=rng.randint(2, 15))) + "."
                for _ in range(rng.randint(1, 12))
            )
            for _ in range(60)
        ]
        (folder / f"{name}.txt").write_text(
            "\n\n".join([*documents, "The same text.\nIn every file."]) + "\n"
        )
    return folder


def config_of(corpus, seed=0, **data):
    defaults = {
        "corpus": (str(corpus),), "max_seq_length": 32, "max_predictions_per_seq": 5, "validation_fraction": 0.1,
        "dupe_factor": 3, "num_shards": 3, "workers": 1,
    }  # fmt: skip
    return Config(
        seed=seed, data=DataConfig(**defaults | data), tokenizer=TokenizerConfig(vocab_size=400)
    )


def digests(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows_of(folder, manifest, split):
    records = PreparedRecords(epath.Path(folder), manifest, split)
    return records.read(np.arange(len(records)))


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
    assert (
        prepare(dataclasses.replace(config, data=dataclasses.replace(config.data, workers=2)), out)
        == first
    )
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    with pytest.raises(
        UserError,
        match=r"made with data\.max_seq_length 32: found 40 now, expected the same settings",
    ):
        prepare(config_of(corpus, max_seq_length=40), out)
    (corpus / "a.txt").write_text("Something else.\nAltogether.\n")
    with pytest.raises(
        UserError, match=r"made from .*a\.txt: found a source added, removed or changed since"
    ):
        prepare(config, out)


def test_a_finished_folder_of_a_version_with_fewer_settings_is_left_alone(corpus, tmp_path):
    config, out = config_of(corpus), tmp_path / "out"
    prepare(config, out)
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["settings"]["data"]["word_segmenter"]
    manifest["counts"] = {k: v for k, v in manifest["counts"].items() if "next" not in k}
    (out / "manifest.json").write_text(json.dumps(manifest))
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("*") if p.is_file()}
    assert prepare(config, out).counts == manifest["counts"]
    assert before == {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("*") if p.is_file()
    }
    assert "next sentence:" not in summarize(out)


def test_work_of_a_version_with_other_rules_is_made_anew_and_not_mixed(corpus, tmp_path, caplog):
    config, out = config_of(corpus), tmp_path / "out"
    # Stopped in the middle of the shards: the tokenizer and the tokenized text are there.
    process = start(config, out, "kill-after", ".tfrecord", 2)
    process.communicate()
    plan = out / ".work" / "plan.json"
    content = json.loads(plan.read_text())
    del content["rules"], content["settings"]["data"]["word_segmenter"]
    plan.write_text(json.dumps(content))
    shards = list(out.glob("*.tfrecord"))
    parts = list(out.rglob("part-*"))
    assert len(shards) == 2
    for path in [*shards, *parts, out / "tokenizer" / "vocab.txt"]:
        path.write_bytes(b"of other rules")
    prepare(config, out)
    assert [message for message in caplog.messages if "begun under other rules" in message]
    prepare(config, tmp_path / "fresh")
    assert digests(out) == digests(tmp_path / "fresh")


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


def test_a_vocabulary_changed_since_is_refused(corpus, tmp_path):
    vocabulary, out = tmp_path / "vocab.txt", tmp_path / "out"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word", *map("##{}".format, range(10))]
    vocabulary.write_text("\n".join(words))
    config = dataclasses.replace(
        config_of(corpus), tokenizer=TokenizerConfig(vocab_file=str(vocabulary))
    )
    prepare(config, out)
    vocabulary.write_text("\n".join(reversed(words)))
    with pytest.raises(UserError, match=r"made with .*vocab\.txt: found other entries in it now"):
        prepare(config, out)


def test_what_a_kill_leaves_before_the_first_and_after_the_last_step_is_no_hindrance(
    corpus, tmp_path
):
    work = tmp_path / "out" / ".work"
    work.mkdir(parents=True)
    manifest = prepare(config_of(corpus), tmp_path / "out")
    assert not work.exists()
    work.mkdir()
    (work / "plan.json").write_text("{}")
    assert prepare(config_of(corpus), tmp_path / "out") == manifest
    assert not work.exists()


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


def test_one_document_left_of_near_duplicates_gives_no_next_sentences_and_what_to_do_is_said(
    tmp_path,
):
    """That the corpus has one document is said before the work; this is known only after it."""
    pytest.importorskip("rensa")
    sentences = [f"The {n}th sentence is about the number {n * n}." for n in range(60)]
    variants = ["\n".join([f"Variant {n} of the text.", *sentences]) for n in range(3)]
    (tmp_path / "a.txt").write_text("\n\n".join(variants))
    config = config_of(tmp_path / "a.txt", validation_fraction=0.0, near_duplicate_threshold=0.8)
    with pytest.raises(UserError) as raised:
        prepare(config, tmp_path / "out")
    assert str(raised.value) == (
        "split train: found one document, so that no B is from another, "
        "expected two or more (or data.split_documents, which cuts long ones, "
        "or data.sentence_objective sentence_order or none)"
    )


def test_documents_of_a_sentence_each_give_no_next_sentences_and_what_to_do_is_said(tmp_path):
    """All labels would be the same."""
    (tmp_path / "a.txt").write_text("\n\n".join(f"Sentence number {n}." for n in range(50)))
    config = config_of(tmp_path / "a.txt")
    with pytest.raises(UserError) as raised:
        prepare(config, tmp_path / "out")
    assert str(raised.value) == (
        "split train: found a single sentence in each document, so that no A has a next one, "
        "expected two or more in some (or data.sentence_objective sentence_order or none)"
    )
    # The folder takes the other setting at once.
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [".work"]
    prepare(config.replace(data={"sentence_objective": "sentence_order"}), tmp_path / "out")


SENTENCES = 40


def numbered_corpus(folder, document_count):
    """Write documents of three equal words a sentence, which tell the document and the sentence.

    Returns the file of the corpus and the vocabulary; word (d, s) has the id 5 + d * SENTENCES + s.
    """
    words = [f"d{d}s{s}" for d in range(document_count) for s in range(SENTENCES)]
    vocabulary, path = folder / "vocab.txt", folder / "numbered.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    lines = [" ".join([word] * 3) for word in words]
    documents = ["\n".join(lines[i : i + SENTENCES]) for i in range(0, len(lines), SENTENCES)]
    path.write_text("\n\n".join(documents))
    return path, vocabulary


def numbered_pairs(folder, manifest, split):
    """Return (document, sentence) of A's first and last word, and of B's, int [n, 4, 2]; labels."""
    rows = unmask(rows_of(folder, manifest, split))
    ids, segments = rows["input_ids"], rows["segment_ids"]
    words = []
    for segment in (0, 1):
        inside = (ids >= 5) & (segments == segment)
        first = inside.argmax(1)
        last = inside.shape[1] - 1 - inside[:, ::-1].argmax(1)
        words += [ids[np.arange(len(ids)), at] - 5 for at in (first, last)]
    word_Rx4 = np.stack(words, axis=1)
    pairs = np.stack([word_Rx4 // SENTENCES, word_Rx4 % SENTENCES], axis=2)
    return pairs, rows["next_sentence_labels"][:, 0]


@pytest.mark.parametrize("shards", [1, 8, 64])
@pytest.mark.parametrize("documents", [7, 150])
def test_rows_have_right_labels_and_half_are_random_whatever_the_shards(
    tmp_path, documents, shards
):
    path, vocabulary = numbered_corpus(tmp_path, documents)
    config = config_of(
        path, num_shards=shards, validation_fraction=0.4, dupe_factor=600 // documents
    )
    config = dataclasses.replace(config, tokenizer=TokenizerConfig(vocab_file=str(vocabulary)))
    manifest = prepare(config, tmp_path / "out")
    seen = {}
    for split in ("train", "validation"):
        pairs, labels = numbered_pairs(tmp_path / "out", manifest, split)
        a_first, a_last, b_first, b_last = pairs.transpose(1, 0, 2)
        follows = labels == 0
        assert (a_first[:, 0] == a_last[:, 0]).all()
        assert (b_first[:, 0] == b_last[:, 0]).all()
        assert ((a_last[:, 0] == b_first[:, 0]) == follows).all()
        assert (b_first[follows, 1] == a_last[follows, 1] + 1).all()
        seen[split] = {*np.unique(a_first[:, 0]).tolist()}
        assert {*np.unique(b_first[:, 0]).tolist()} == seen[split]
        has_next = a_last[:, 1] < SENTENCES - 1
        assert not follows[~has_next].any()
        count = has_next.sum()
        assert count > 1000
        share = (~follows)[has_next].mean()
        assert share == pytest.approx(0.5, abs=3 * np.sqrt(0.25 / count))
        assert manifest.counts[f"{split}_pairs_with_next"] == count
        assert manifest.counts[f"{split}_pairs_without_next"] == (~has_next).sum()
        check_partners(a_last[~follows, 0], b_first[~follows, 0])
        # Each sentence is in an A or a true B, once a pass.
        words = [
            (document, sentence, follow)
            for (document, first), (_, last), (_, end), follow in zip(
                a_first, a_last, b_last, follows, strict=True
            )
            for sentence in range(first, (end if follow else last) + 1)
        ]
        uses = np.zeros((documents, SENTENCES), int)
        np.add.at(uses, tuple(np.array(words)[:, :2].T), 1)
        assert (uses[sorted(seen[split])] == config.data.dupe_factor).all()
    assert not seen["train"] & seen["validation"]
    assert len(seen["train"] | seen["validation"]) == documents


def check_partners(documents, partners):
    """Each other document of the split gives about as many random Bs to all documents together."""
    names, counts = np.unique(partners, return_counts=True)
    assert not (documents == partners).any()
    expected = len(partners) / len(names)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < len(names) + 5 * np.sqrt(2 * len(names))


def test_a_folder_with_other_files_is_not_written_into(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="found files that no preparation made"):
        prepare(config_of(corpus), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["precious.txt"]


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
    disk = small_disk(int(sum(sizes.values()) * share))
    with pytest.raises(UserError, match=rf"{named}: cannot be written \(No space left on device\)"):
        prepare(config, disk / "out")
    whole = list((disk / "out").glob("*.tfrecord"))
    assert bool(whole) == (share > 0.5)
    assert all(p.stat().st_size == sizes[p.name] for p in whole)
    assert not [p for p in (disk / "out").rglob("*.unfinished") if p.parent.name != "tokenizer"]
    tokenized = [p for p in (disk / "out" / ".work").iterdir() if p.is_dir() and p.name != "sample"]
    assert all((p / "done.json").exists() for p in tokenized)
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


def test_lines_that_look_wrapped_and_texts_without_marks_are_counted(tmp_path):
    words = [f"word{i}" for i in range(60)]
    wrapped = [textwrap.fill(f"{' '.join(words[i:])}. Then more.", 40) for i in range(40)]
    unmarked = ["\n".join(words[i : i + 5]) for i in range(40)]
    (tmp_path / "a.txt").write_text("\n\n".join(wrapped))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in unmarked))
    config = config_of(tmp_path / "a.*")
    manifest = prepare(config, tmp_path / "out")
    assert manifest.counts["wrapped_documents"] == manifest.counts["unmarked_documents"] == 40
    assert len(describe_doubts(manifest.counts)) == 2


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


def test_a_corpus_that_is_too_small_leaves_the_folder_free_for_other_settings(tmp_path):
    (tmp_path / "a.txt").write_text("Only one document.\nOf two sentences.\n" * 30)
    for objective in ("next_sentence", "none"):
        config = config_of(tmp_path / "a.txt", sentence_objective=objective)
        with pytest.raises(UserError, match=r"data\.corpus: found 1 document"):
            prepare(config, tmp_path / "out")
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    config = config_of(tmp_path / "a.txt", validation_fraction=0.0, sentence_objective="none")
    assert prepare(config, tmp_path / "out").counts["train_documents"] == 1


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


def test_letters_of_each_script_are_counted_by_split(tmp_path):
    texts = [f"word {n}\nслово {n}" for n in range(40)]
    (tmp_path / "a.txt").write_text("\n\n".join(texts))
    manifest = prepare(config_of(tmp_path / "a.txt", validation_fraction=0.5), tmp_path / "out")
    for split in ("train", "validation"):
        documents = manifest.counts[f"{split}_documents"]
        assert manifest.scripts[split] == {"Cyrillic": 5 * documents, "Latin": 4 * documents}


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
