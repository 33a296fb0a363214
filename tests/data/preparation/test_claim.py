import contextlib
import dataclasses
import json
import logging

import pytest
from etils import epath

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.preparation.claim import (
    RULES,
    check_same_inputs,
    claim,
    released_if_refused,
    settings_of,
)
from bertjax.data.preparation.prepare import prepare
from bertjax.data.records.summary import summarize
from bertjax.errors import UserError
from tests.data.preparation.corpora import config_of, digests
from tests.interrupted_prepare import start


def inputs_of(**data):
    return {"settings": settings_of(Config(data=DataConfig(**data))), "sources": {"a.txt": "1"}}


def write_plan(folder, content):
    (folder / ".work").mkdir(parents=True)
    (folder / ".work" / "plan.json").write_text(json.dumps(content))


def without(inputs, *fields):
    """Return the inputs as a version wrote them that did not have these fields of `data`."""
    copy = json.loads(json.dumps(inputs))
    for field in fields:
        del copy["settings"]["data"][field]
    return copy


def test_a_setting_that_an_earlier_version_did_not_have_counts_as_its_default(tmp_path):
    earlier = without(inputs_of(), "dupe_factor", "word_segmenter")
    check_same_inputs(epath.Path(tmp_path), earlier, inputs_of())
    with pytest.raises(UserError, match=r"made with data\.dupe_factor 5: found 6 now"):
        check_same_inputs(epath.Path(tmp_path), earlier, inputs_of(dupe_factor=6))
    del earlier["settings"]["tokenizer"]["lowercase"]
    check_same_inputs(epath.Path(tmp_path), earlier, inputs_of())
    now = inputs_of()
    now["settings"] = settings_of(Config(tokenizer=TokenizerConfig(lowercase=False)))
    with pytest.raises(UserError, match=r"made with tokenizer\.lowercase True: found False now"):
        check_same_inputs(epath.Path(tmp_path), earlier, now)


def test_what_only_the_step_makes_of_the_rows_is_no_setting_of_a_preparation():
    rows = {
        "dynamic_masking": True, "sentence_objective": "none", "max_predictions_per_seq": 127,
    }  # fmt: skip
    assert inputs_of(**rows, causal_share=0.5) == inputs_of(**rows)
    assert inputs_of(**rows, mask_shares=(1, 0, 0)) != inputs_of(**rows)


def test_work_begun_under_the_same_rules_is_kept(tmp_path, caplog):
    folder = epath.Path(tmp_path / "out")
    claim(folder, inputs_of())
    (folder / ".work" / "unit").mkdir()
    (folder / "train-00000-of-00008.tfrecord").write_text("rows")
    with caplog.at_level(logging.WARNING):
        claim(folder, inputs_of())
    assert not caplog.messages
    assert (folder / ".work" / "unit").exists()
    assert (folder / "train-00000-of-00008.tfrecord").exists()


@pytest.mark.parametrize("rules", [{}, {"rules": RULES + 1}])
def test_work_begun_under_other_rules_is_removed_with_a_word_and_nothing_else_is(
    tmp_path, caplog, rules
):
    folder = tmp_path / "out"
    write_plan(folder, rules | without(inputs_of(), "word_segmenter"))
    (folder / ".work" / "unit").mkdir()
    (folder / ".work" / "unit" / "part-00000").write_text("ids")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("[PAD]")
    for name in (
        "train-00000-of-00008.tfrecord",
        "train-00001-of-00008.tfrecord.unfinished",
        "validation-00000-of-00001.tfrecord",
        "dataset_info.json",
        "features.json",
        "notes.txt",
    ):
        (folder / name).write_text("text")
    with caplog.at_level(logging.WARNING):
        claim(epath.Path(folder), inputs_of())
    assert sorted(path.name for path in folder.iterdir()) == [".work", "notes.txt"]
    assert [path.name for path in (folder / ".work").iterdir()] == ["plan.json"]
    plan = json.loads((folder / ".work" / "plan.json").read_text())
    assert plan == {"rules": RULES, **json.loads(json.dumps(inputs_of()))}
    (message,) = caplog.messages
    assert message == (
        f"{folder}: begun under other rules (number {rules.get('rules', 1)}, now {RULES}); "
        "all of it is made anew"
    )


def test_other_settings_are_refused_before_anything_is_removed(tmp_path):
    folder = tmp_path / "out"
    write_plan(folder, inputs_of(dupe_factor=2))
    (folder / "train-00000-of-00008.tfrecord").write_text("rows")
    with pytest.raises(UserError, match=r"made with data\.dupe_factor 2: found 5 now"):
        claim(epath.Path(folder), inputs_of())
    assert (folder / "train-00000-of-00008.tfrecord").exists()


def test_a_plan_that_is_no_json_is_named(tmp_path):
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "plan.json").write_text("{")
    with pytest.raises(UserError, match=r"plan\.json: cannot be read as JSON"):
        claim(epath.Path(tmp_path), inputs_of())


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


def test_a_vocabulary_changed_since_is_refused(corpus, tmp_path):
    vocabulary, out = tmp_path / "vocab.txt", tmp_path / "out"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word", *map("##{}".format, range(10))]
    vocabulary.write_text("\n".join(words))
    config = dataclasses.replace(
        config_of(corpus), tokenizer=TokenizerConfig(vocab_file=str(vocabulary))
    )
    prepare(config, out)
    vocabulary.write_text("\n".join(reversed(words)))
    with pytest.raises(UserError, match=r"made with .*vocab\.txt: found other entries, or other"):
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


def test_a_folder_with_other_files_is_not_written_into(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="found files that no preparation made"):
        prepare(config_of(corpus), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["precious.txt"]


def test_a_corpus_that_is_too_small_leaves_the_folder_free_for_other_settings(tmp_path):
    (tmp_path / "a.txt").write_text("Only one document.\nOf two sentences.\n" * 30)
    for objective in ("next_sentence", "none"):
        config = config_of(tmp_path / "a.txt", sentence_objective=objective)
        with pytest.raises(UserError, match=r"data\.corpus: found 1 document"):
            prepare(config, tmp_path / "out")
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    config = config_of(tmp_path / "a.txt", validation_fraction=0.0, sentence_objective="none")
    assert prepare(config, tmp_path / "out").counts["train_documents"] == 1


@pytest.mark.parametrize("refused,taken", [
    ({"vocab_file": "none.txt"}, {}),
    ({"kind": "byte_bpe"}, {"kind": "byte_bpe", "lowercase": False}),
    ({"kind": "unigram", "vocab_size": 10}, {}),
    ({"vocab_size": 6}, {}),
])  # fmt: skip
def test_after_a_refused_tokenizer_the_folder_takes_another_one(tmp_path, refused, taken):
    """Else a user who did as told would read that the settings must stay the same."""
    (tmp_path / "a.txt").write_text("\n\n".join(f"One two.\nNumber {n}." for n in range(12)))
    config = config_of(tmp_path / "a.txt")
    with pytest.raises(UserError):
        prepare(config.replace(tokenizer=refused), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [".work"]
    prepare(config.replace(tokenizer=taken), tmp_path / "out")


def test_after_a_refusal_of_tokenized_documents_the_folder_takes_another_setting(tmp_path):
    """No document of one token has parts to swap: this is known only when all are tokenized."""
    (tmp_path / "a.txt").write_text("\n\n".join("abcdefgh"))
    config = config_of(
        tmp_path / "a.txt", sentence_objective="sentence_order", validation_fraction=0.0
    )
    with pytest.raises(UserError, match="found no document of two tokens or more"):
        prepare(config, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [".work"]
    prepare(config.replace(data={"sentence_objective": "none"}), tmp_path / "out")


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_refused_line_of_text_the_folder_takes_another_setting(corpus, tmp_path, workers):
    """The documents are counted until there are enough, so the line is read later."""
    (corpus / "z.txt").write_bytes(b"good\nbad \xff\n")
    config = config_of(corpus, workers=workers)
    with pytest.raises(UserError, match=r"z\.txt, line 2: found the byte 0xff"):
        prepare(config, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [".work"]
    if workers == 1:
        prepare(config.replace(data={"encoding_errors": "replace"}), tmp_path / "out")


def test_a_stage_that_fails_for_a_reason_that_passes_keeps_the_work(corpus, tmp_path):
    """As a full disk does."""
    config = config_of(corpus)

    @contextlib.contextmanager
    def runner():
        def run(stage, items, progress):
            if stage == "write":
                raise UserError("a disk is full")
            for item in items:
                item.run()

        yield run

    with pytest.raises(UserError, match="a disk is full"):
        prepare(config, tmp_path / "out", runner=runner())
    assert (tmp_path / "out" / ".work" / "plan.json").exists()
    with pytest.raises(UserError, match="expected the same settings, or another folder"):
        prepare(config.replace(data={"dupe_factor": 2}), tmp_path / "out")
    prepare(config, tmp_path / "out")


def test_after_text_that_is_unknown_throughout_the_folder_takes_the_kind_that_is_advised(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join("猫犬鳥\n魚馬牛" + "羊" * n for n in range(1, 9)))
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc"]))
    config = config_of(tmp_path / "a.txt", validation_fraction=0.0)
    with pytest.raises(UserError, match=r"tokenizer\.kind unigram"):
        prepare(config.replace(tokenizer={"vocab_file": str(vocabulary)}), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [".work"]
    prepare(config.replace(tokenizer={"kind": "unigram", "vocab_size": 40}), tmp_path / "out")


def test_counts_of_settings_that_were_refused_do_not_stay_for_those_of_others(tmp_path):
    """A unit of work has the same name under other settings, and would be counted as before."""
    folder = epath.Path(tmp_path)
    claim(folder, inputs_of())
    counted = folder / ".work" / "count"
    counted.mkdir()
    (counted / "0123456789abcdef.json").write_text("{}")
    with pytest.raises(UserError), released_if_refused(folder):
        raise UserError("b.txt.gz: is truncated")
    assert [path.name for path in tmp_path.rglob("*")] == [".work"]
