import logging
import random
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from bertjax.cli.main import main
from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.pipeline import open_split, train_batches
from bertjax.data.preparation import text_losses
from bertjax.data.preparation.documents import digest
from bertjax.data.preparation.prepare import prepare
from bertjax.data.preparation.shard_assignment import plan_shards
from bertjax.data.records.reader import PreparedRecords
from bertjax.data.records.summary import summarize
from bertjax.data.tokenizers.tokenizer import load_tokenizer, mask_vocabulary
from bertjax.errors import UserError
from bertjax.masking.dynamic import mask_batch
from bertjax.masking.static import unmask

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "text"
THAI = ["เพื่อน", "โรงเรียน", "น้ำ", "กิน", "หนังสือ", "ไป", "กับ", "และ", "สอน", "ความสุข", "ครู", "เด็ก"]
HINDI = ["में", "यह", "किताब", "पढ़ता", "हूँ", "और", "लड़की", "स्कूल", "जाती", "है"]
ENGLISH = ["the", "book", "is", "on", "a", "table", "and", "reads", "child", "school"]


def documents(words, between, count=40, seed=0):
    """Documents in the BERT format: four lines each, of words that `between` parts."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        lines = [between.join(rng.choices(words, k=12)) for _ in range(4)]
        texts.append("\n".join(lines))
    return texts


def config_of(folder, texts, kind="wordpiece", vocab_size=300, tokenizer=None, **data):
    path = folder / "corpus.txt"
    path.write_text("\n\n".join(texts) + "\n")
    defaults = {
        "corpus": (str(path),), "max_seq_length": 64, "max_predictions_per_seq": 10, "num_shards": 1,
        "validation_fraction": 0.2, "workers": 1, "dupe_factor": 2,
    }  # fmt: skip
    options = {"kind": kind, "vocab_size": vocab_size, **(tokenizer or {})}
    return Config(data=DataConfig(**defaults | data), tokenizer=TokenizerConfig(**options))


def prepared(folder, texts, caplog, **options):
    """Prepare the texts; return the manifest and the warnings."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "bertjax"):
        manifest = prepare(config_of(folder, texts, **options), folder / "out")
    return manifest, [record.getMessage() for record in caplog.records]


def test_lost_characters_are_counted_and_warned_of_with_what_to_do(tmp_path, caplog):
    # Clauses that occur once have no entry of their own, and characters at an end of a word only
    # have none to continue one.
    rare = [chr(0x0E01 + number) for number in range(20)]
    texts = documents(ENGLISH, " ") + ["".join(rare), "".join(reversed(rare))] * 3
    manifest, warnings = prepared(tmp_path, texts, caplog, vocab_size=40)
    visible = sum(len("".join(text.split())) for text in texts)
    assert manifest.counts["visible_characters"] == visible
    lost = manifest.counts["unknown_characters"]
    assert 0.01 < lost / visible < 1
    (warning,) = warnings
    assert warning.startswith(f"{100 * lost / visible:.1f} % of the characters are lost in unknown")
    assert "--tokenizer.kind unigram" in warning
    assert f"lost in unknown tokens: {lost / visible:.2%}" in text_losses.describe(manifest.counts)


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "byte_bpe"])
def test_a_zero_width_space_parts_words_under_every_kind(kind, tmp_path, caplog):
    tokenizer = {"lowercase": kind != "byte_bpe"}
    manifests = []
    for name, between in (("space", " "), ("zero_width", "\u200b")):
        (tmp_path / name).mkdir()
        texts = documents(THAI, between, 20)
        manifests.append(
            prepared(tmp_path / name, texts, caplog, kind=kind, tokenizer=tokenizer)[0]
        )
    # It is counted with the control characters that are replaced.
    assert manifests[1].counts.pop("control_characters") == 20 * 4 * 11
    assert manifests[0].counts.pop("control_characters") == 0
    assert manifests[0].counts == manifests[1].counts
    assert manifests[0].counts["unknown_characters"] == 0
    assert manifests[0].tokenizer_fingerprint == manifests[1].tokenizer_fingerprint


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte_bpe"])
def test_other_kinds_lose_nothing_of_text_without_spaces(kind, tmp_path, caplog):
    tokenizer = {"lowercase": kind != "byte_bpe"}
    manifest, warnings = prepared(
        tmp_path, documents(THAI, ""), caplog, kind=kind, tokenizer=tokenizer
    )
    assert manifest.counts["unknown_characters"] == 0
    assert not warnings


def test_text_that_is_known_gives_no_warning(tmp_path, caplog):
    manifest, warnings = prepared(tmp_path, documents(ENGLISH, " "), caplog)
    assert manifest.counts["unknown_characters"] == manifest.counts["stripped_characters"] == 0
    assert not warnings


def test_marks_that_would_be_stripped_are_counted_and_warned_of_with_the_setting(tmp_path, caplog):
    texts = documents(HINDI, " ")
    (tmp_path / "default").mkdir()
    manifest, warnings = prepared(tmp_path / "default", texts, caplog)
    # Vowel signs, the nukta, the virama, nasal marks: in 40 to 50 of 100 letters of these words.
    assert 0.2 < text_losses.stripped_share(manifest.counts) < 0.6
    (warning,) = warnings
    assert "--tokenizer.strip-accents False" in warning
    manifest, warnings = prepared(tmp_path, texts, caplog, tokenizer={"strip_accents": False})
    assert manifest.counts["stripped_characters"] == 0
    assert not warnings
    tokenizer = load_tokenizer(tmp_path / "out" / "tokenizer")
    ids, _ = tokenizer.encode_batch(["में यह किताब"])
    assert tokenizer.decode(ids) == "में यह किताब"


def sequences(count, seed=0):
    """DNA: words of more than a hundred letters, which WordPiece does not read."""
    rng = random.Random(seed)
    return ["\n".join("".join(rng.choices("ACGT", k=150)) for _ in range(4)) for _ in range(count)]


def test_a_corpus_that_is_unknown_as_a_whole_is_refused_before_shards_are_written(tmp_path):
    with pytest.raises(UserError, match="found all 24,000 characters .* unigram") as caught:
        prepare(config_of(tmp_path, sequences(40)), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*.tfrecord"))
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("unknown", ["train", "validation"])
def test_a_split_without_a_known_token_is_refused(tmp_path, unknown):
    vocabulary = tmp_path / "vocab.txt"
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ENGLISH]
    vocabulary.write_text("".join(f"{entry}\n" for entry in entries))
    options = {"tokenizer": {"vocab_file": str(vocabulary)}, "validation_fraction": 0.5}
    # Which documents are held out follows from their content: of each kind those of one split.
    known = of_split(tmp_path, documents(ENGLISH, " "), held_out=unknown == "train")
    lost = of_split(tmp_path, sequences(40), held_out=unknown == "validation")
    config = config_of(tmp_path, known + lost, **options)
    with pytest.raises(UserError, match=f"split {unknown}: found .* tokens, all of them unknown"):
        prepare(config, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    # With a word in it, the split can be trained on.
    config = config_of(tmp_path, known + of_split(tmp_path, documents(ENGLISH, " ", 40, 1) + sequences(9), held_out=unknown == "validation"), **options)  # fmt: skip
    assert prepare(config, tmp_path / "whole").counts[f"{unknown}_documents"] > 1


def of_split(folder, texts, held_out):
    plan = plan_shards(config_of(folder, texts, validation_fraction=0.5), 1000)
    digests = [digest(text.split("\n")) for text in texts]
    drawn = plan.held_out(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16))
    return [text for text, is_held_out in zip(texts, drawn, strict=True) if is_held_out == held_out]


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "byte_bpe"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_masked_share_of_prepared_rows_without_spaces_is_as_asked_for(tmp_path, kind, dynamic):
    tokenizer = {"lowercase": kind != "byte_bpe", "strip_accents": False}
    config = config_of(
        tmp_path, documents(THAI, ""), kind=kind, tokenizer=tokenizer, dynamic_masking=dynamic,
        validation_fraction=0.5,
    )  # fmt: skip
    manifest = prepare(config, tmp_path / "out")
    records = PreparedRecords(epath.Path(tmp_path / "out"), manifest, "validation")
    batch = records.read(np.arange(len(records)))
    tokenizer = load_tokenizer(tmp_path / "out" / "tokenizer")
    if dynamic:
        batch = masked_in_the_step(config, tmp_path / "out", tokenizer)
    ids = unmask({name: np.asarray(values) for name, values in batch.items()})["input_ids"]
    special = np.isin(ids, tokenizer.special_ids)
    assert batch["masked_lm_weights"].sum() / (~special).sum() == pytest.approx(0.15, abs=0.02)


def masked_in_the_step(config, folder, tokenizer):
    records = open_split(config, folder, "train", tokenizer.fingerprint)
    vocabulary = mask_vocabulary(tokenizer)
    batches = train_batches([records], config, tokenizer.starts_word, 0, vocabulary=vocabulary)
    return mask_batch(next(batches), config.data, vocabulary, jax.random.key(0))


def test_counts_of_an_earlier_version_say_nothing():
    assert text_losses.describe({"characters": 10}) == ""
    text_losses.report({"characters": 10}, TokenizerConfig())


def test_the_command_prints_the_shares_and_takes_the_setting(tmp_path, capsys):
    config = config_of(tmp_path, documents(HINDI, " "))
    command = [
        "prepare", "tiny", "--data.corpus", config.data.corpus[0], "--tokenizer.vocab-size", "200", "--data.workers", "1",
        "--data.validation-fraction", "0.3",
    ]  # fmt: skip
    assert main([*command, "--output-dir", str(tmp_path / "a")]) == 0
    assert "accents and marks stripped from 0.00%" not in capsys.readouterr().out
    strip = ["--tokenizer.strip-accents", "False"]
    assert main([*command, *strip, "--output-dir", str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    assert "lost in unknown tokens: 0.00% of the characters" in printed
    assert "accents and marks stripped from 0.00%" in printed
    assert "unknown characters 0" in summarize(tmp_path / "b")
    # The setting is one of the folder's.
    assert main([*command, "--output-dir", str(tmp_path / "b")]) == 2
    assert "made with tokenizer.strip_accents False" in capsys.readouterr().err


@pytest.mark.parametrize("name,lost", [("thai.txt", 0.3), ("hindi.txt", 0.0), ("english.txt", 0.0)])
def test_shares_of_real_cases(name, lost, tmp_path, caplog):
    if not CASES.exists():
        pytest.skip(f"no cases at {CASES}")
    texts = (CASES / name).read_text().strip().split("\n\n")
    manifest, warnings = prepared(tmp_path, texts, caplog, vocab_size=1000)
    share = text_losses.unknown_share(manifest.counts)
    assert lost - 0.01 <= share <= lost + 0.4 * (lost > 0) + 0.01
    assert any("unigram" in warning for warning in warnings) == (lost > 0)
    assert text_losses.stripped_share(manifest.counts) > 0.1 or name == "english.txt"
