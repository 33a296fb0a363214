from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.data.corpus.sources import find_sources
from bertjax.data.corpus.work_units import make_work_units, read_documents
from bertjax.data.preparation.documents import digest
from bertjax.data.preparation.runners import WorkItem
from bertjax.data.preparation.shard_assignment import Plan, split_word
from bertjax.data.preparation.splits import count as counting
from bertjax.data.preparation.splits.count import Extremes, count


def run_here(stage: str, items: list[WorkItem]) -> None:
    for item in items:
        item.run()


def write(path, texts):
    path.write_text("\n\n".join(texts) + "\n")
    return DataConfig(corpus=(str(path),), validation_fraction=0.02)


def counted(folder, data, unit_bytes=0):
    units = make_work_units(find_sources(data), unit_bytes)
    return count(data, str(folder / "out"), units, run_here)


def words_of(data):
    units = make_work_units(find_sources(data))
    documents = [d for unit in units for d in read_documents(unit, data, Counter())]
    return [split_word(digest(document)) for document in documents]


@given(words=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=30))
def test_extremes_are_the_lowest_and_highest_distinct_words_in_any_order(words):
    extremes = Extremes()
    for word in words:
        extremes.add(word, characters=7)
    distinct = sorted(set(words))
    assert extremes.lowest == distinct[:4]
    assert extremes.highest == distinct[-4:]


@given(words=st.lists(st.integers(0, 40), max_size=20), bound=st.integers(0, 41))
def test_counts_of_the_splits_are_right_up_to_four(words, bound):
    extremes = Extremes()
    for word in words:
        extremes.add(word, characters=7)
    distinct = set(words)
    assert extremes.counts(bound) == {
        "train": min(4, sum(word >= bound for word in distinct)),
        "validation": min(4, sum(word < bound for word in distinct)),
    }


@given(digests=st.lists(st.binary(min_size=16, max_size=16), min_size=1), bound=st.data())
def test_the_split_word_is_what_the_plan_compares_with_the_bound(digests, bound):
    words = [split_word(one) for one in digests]
    value = bound.draw(st.sampled_from(words) | st.integers(0, 2**64 - 1))
    array = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
    assert Plan(value, 4, 1, 1).held_out(array).tolist() == [word < value for word in words]


def test_few_documents_are_all_counted_copies_once_and_those_without_text_never(tmp_path):
    texts = ["One text.", "Another text.", "One text.", "\u0301\u0301", "\u200b.", "Short"]
    data = write(tmp_path / "a.txt", texts)
    # U+200B separates words, so of the fifth text the mark alone is left.
    expected = {split_word(digest([text])) for text in ("One text.", "Another text.", ".", "Short")}
    assert set(counted(tmp_path, data).lowest) == expected
    longer = DataConfig(corpus=data.corpus, validation_fraction=0.02, min_document_characters=8)
    assert len(counted(tmp_path, longer).lowest) == 2


def test_counting_ends_when_the_hash_suffices(tmp_path, monkeypatch):
    data = write(tmp_path / "a.txt", [f"Text number {n}." for n in range(3000)])
    read = []

    def watched(*args):
        for document in read_documents(*args):
            read.append(document)
            yield document

    monkeypatch.setattr(counting, "read_documents", watched)
    extremes = counted(tmp_path, data)
    assert 2 < len(read) < 1500
    assert len(extremes.lowest) == 4
    bound = int(0.02 * 2**64)
    assert sum(split_word(digest(document)) < bound for document in read) == 2


def test_workers_count_what_the_calling_process_does_not(tmp_path, monkeypatch):
    # No document of a fraction this small, so all are counted.
    data = write(tmp_path / "a.txt", [f"Text number {n}." for n in range(500)])
    data = DataConfig(corpus=data.corpus, validation_fraction=1e-12)
    alone = counted(tmp_path, data)
    words = sorted(words_of(data))
    characters = sum(len(f"Text number {n}.") for n in range(500))
    assert alone == Extremes(words[:4], words[-4:], characters)
    monkeypatch.setattr(counting, "FIRST_CHARACTERS", 100)
    assert counted(tmp_path, data, unit_bytes=1000) == alone
    assert not (tmp_path / "out" / ".work" / "count").exists()
    # By now the hash suffices within some of the work units, which end early.
    data = DataConfig(corpus=data.corpus, validation_fraction=0.3)
    found = counted(tmp_path, data, unit_bytes=1000).counts(int(0.3 * 2**64))
    assert min(found.values()) >= 2
