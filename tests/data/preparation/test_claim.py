import json
import logging

import pytest
from etils import epath

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.preparation.claim import RULES, check_same_inputs, claim, settings_of
from bertjax.errors import UserError


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
