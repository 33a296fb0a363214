import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bertjax
from bertjax.errors import UserError
from bertjax.training.replay.sightings import rows_with
from tests.training.replay.runs_of_phases import config_of, library


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with library(tmp_path_factory.mktemp("find")) as folder:
        bertjax.train(config_of(train={"save_every_steps": 9}), "runs/found")
        yield folder


def scanned(run, steps, sentence):
    """(step, record) of all rows of all batches, in which the pieces stand side by side."""
    found = []
    for step in range(1, steps + 1):
        update = bertjax.replay(run, step)
        ids = update.tokenizer.encode_batch([sentence])[0].tolist()
        wanted = f" {' '.join(map(str, ids))} "
        for record, row in zip(update.records, update.original_ids, strict=True):
            if wanted in f" {' '.join(map(str, row.tolist()))} ":
                found.append((step, int(record)))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("sentence", ["cat", "the cat", "dog sees the", "other. bird"])
def test_it_names_exactly_the_steps_that_a_scan_of_all_batches_finds(run, sentence):
    found = bertjax.find_steps("runs/found", sentence)
    assert found.until == 9
    assert sorted((each.step, each.record) for each in found.seen) == scanned(
        "runs/found", 9, sentence
    )
    assert {each.phase for each in found.searched} == {1, 2}
    for each in found.searched:
        assert each.size > 0
        assert 0 <= each.full <= each.size
    of_phases = {each.phase: set(each.records) for each in found.searched}
    assert all(each.record in of_phases[each.phase] for each in found.seen)


@pytest.mark.slow
def test_a_sentence_that_no_row_has_is_seen_in_no_step(run):
    found = bertjax.find_steps("runs/found", " ".join(["cat"] * 14))
    assert found.seen == []
    assert all(each.records == () for each in found.searched)


@pytest.mark.slow
@pytest.mark.parametrize("sentence,message", [
    (" ", "--find: found ' ', expected a text with one piece or more"),
    ("the \u4e2d cat", "--find: found 'the \u4e2d cat', with a piece that is not in the vocabulary"),
])  # fmt: skip
def test_text_that_the_vocabulary_does_not_have_is_refused(run, sentence, message):
    with pytest.raises(UserError, match=message):
        bertjax.find_steps("runs/found", sentence)


@given(
    rows=st.lists(st.lists(st.integers(-1, 2), min_size=5, max_size=5), min_size=1, max_size=6),
    needle=st.lists(st.integers(0, 2), min_size=1, max_size=6),
)
def test_a_stretch_is_found_wherever_it_stands(rows, needle):
    expected = []
    for row in rows:
        stretches = [row[begin : begin + len(needle)] for begin in range(len(row))]
        expected.append(needle in stretches)
    assert rows_with(np.array(rows), np.array(needle)).tolist() == expected
