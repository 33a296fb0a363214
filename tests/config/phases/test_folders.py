import re

import pytest

from bertjax.config import Config
from bertjax.config.phases.folders import configs_to_prepare
from bertjax.errors import UserError

PHASES = (
    "steps=2",
    "steps=2 data.prepared_dir=long data.max_seq_length=256 data.max_predictions_per_seq=40",
    "steps=2 data.mixture=a=one,b=two data.max_seq_length=128",
    "steps=1 data.prepared_dir=short data.max_predictions_per_seq=20",
)


def run(steps=7, **changes):
    sections = {"train": {"steps": steps}, "optimizer": {"warmup_steps": 0}}
    return Config().replace(data={"prepared_dir": "short"}, **sections, **changes)


def folders(config, phase=0):
    found = configs_to_prepare(config, phase)
    assert not any(each.phases for each in found)
    return [(each.data.prepared_dir, each.data.max_seq_length) for each in found]


def test_each_folder_is_prepared_once_as_its_first_phase_says_and_mixtures_are_left_out():
    assert folders(run(phases=PHASES)) == [("short", 128), ("long", 256)]
    assert folders(run()) == [("short", 128)]


def test_one_phase_alone_may_be_named():
    assert folders(run(phases=PHASES), 2) == [("long", 256)]
    assert folders(run(phases=PHASES), 4) == [("short", 128)]


def test_a_run_that_begins_with_a_mixture_has_its_own_folder_first():
    assert folders(run(3, phases=PHASES[2:])) == [("short", 128)]


def test_later_folders_take_the_tokenizer_of_the_first_unless_a_vocabulary_is_named():
    def files(config, phase=0):
        return [each.tokenizer.vocab_file for each in configs_to_prepare(config, phase)]

    assert files(run(phases=PHASES)) == ["", "short/tokenizer"]
    assert files(run(phases=PHASES), 2) == ["short/tokenizer"]
    assert files(run(phases=PHASES), 4) == [""]
    given = run(phases=PHASES, tokenizer={"vocab_file": "vocab.txt"})
    assert files(given) == ["vocab.txt", "vocab.txt"]
    bucket = run(phases=PHASES).replace(data={"prepared_dir": "gs://b/short"})
    assert files(bucket)[1] == "gs://b/short/tokenizer"


@pytest.mark.parametrize("phase", [5, -1])
def test_a_phase_that_there_is_not_is_refused(phase):
    expected = f"--phase: found {phase}, expected 0 (all) to 4"
    with pytest.raises(UserError, match=re.escape(expected)):
        configs_to_prepare(run(phases=PHASES), phase)
