import dataclasses
from collections import Counter

import numpy as np
import pytest
from etils import epath

from bertjax.config import Config, DataConfig
from bertjax.data.preparation import documents as docs
from bertjax.data.preparation import tokenize_corpus
from bertjax.data.preparation.documents import Documents
from bertjax.data.preparation.inputs import document_pool
from bertjax.data.preparation.inputs.document_pool import (
    SplitSurvey,
    TokenizedCorpus,
    forget_pool,
    open_pool,
    survey_split,
)
from bertjax.data.preparation.shard_assignment import plan_shards

DATA = DataConfig(max_seq_length=64, max_predictions_per_seq=10)


def documents_of(texts):
    """Make a document of each text: a sentence a word, of as many tokens as it has letters."""
    words = [text.split() for text in texts]
    lengths = [len(word) for document in words for word in document]
    digests = b"".join(docs.digest(document) for document in words)
    return Documents(
        np.frombuffer("".join("".join(document) for document in words).encode(), np.uint8).astype(
            np.int32
        ),
        docs.offsets_of(np.array(lengths)),
        docs.offsets_of(np.array([len(document) for document in words])),
        np.frombuffer(digests, np.uint8).reshape(-1, 16),
    )


def texts_of(documents, numbers):
    """Return the texts of documents, the inverse of `documents_of`."""
    texts = []
    for number in numbers:
        words = []
        for sentence in range(documents.documents[number], documents.documents[number + 1]):
            begin, end = documents.sentences[sentence : sentence + 2]
            words.append(bytes(documents.tokens[begin:end].astype(np.uint8)).decode())
        texts.append(" ".join(words))
    return texts


def tokenized(folder, parts, shards=6, fraction=0.0, tokens=None, preparation="one"):
    """Write parts of texts as work units do, each in a unit of its own."""
    plan = plan_shards(
        Config(data=DataConfig(num_shards=shards, validation_fraction=fraction)), text_bytes=0
    )
    names = [f"unit{number}" for number in range(len(parts))]
    count = 0
    for name, texts in zip(names, parts, strict=True):
        documents = documents_of(texts)
        count += len(documents.tokens)
        path = epath.Path(folder) / ".work" / name
        path.mkdir(parents=True, exist_ok=True)
        tokenize_corpus._write_part(path / "part-00000", documents, plan)
    plan = plan.pooled(count if tokens is None else tokens)
    return TokenizedCorpus(str(folder), tuple(names), plan, False, preparation)


def _digests_of(texts):
    return np.sort(np.frombuffer(b"".join(docs.digest(text.split()) for text in texts), "V16"))


def some_texts(count, seed=0):
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghij"))
    texts = []
    for _ in range(count):
        words = ["".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(4)]
        texts.append(" ".join(words))
    return texts


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    forget_pool()


def test_a_small_split_is_one_pool_whatever_the_shards_and_the_order_of_the_sources(tmp_path):
    texts = some_texts(50)
    for shards in (1, 8, 64):
        corpus = tokenized(tmp_path / f"a{shards}", [texts[:20], texts[20:]], shards)
        backwards = tokenized(tmp_path / f"b{shards}", [texts[:-31:-1], texts[19::-1]], shards)
        for number in corpus.plan.ranges_in("train"):
            pool, other = (open_pool(each, number, DATA) for each in (corpus, backwards))
            assert sorted(texts_of(pool.documents, range(50))) == sorted(texts)
            assert pool.ranges == other.ranges
            for values, other_values in zip(pool.documents, other.documents, strict=True):
                assert np.array_equal(values, other_values)
        owned = [number for each in pool.ranges.values() for number in each.own]
        assert sorted(owned) == list(range(50))
        digests = pool.documents.digests
        for number, of_range in pool.ranges.items():
            here = corpus.plan.ranges_of(digests[of_range.own.start : of_range.own.stop])
            assert (here == number).all()


def test_a_pool_has_each_document_once_and_counts_the_copies_in_their_range(tmp_path):
    texts = some_texts(20)
    corpus = tokenized(tmp_path, [texts, texts[:7], [texts[0], "another one"]])
    pool = open_pool(corpus, 0, DATA)
    assert sorted(texts_of(pool.documents, range(21))) == sorted([*texts, "another one"])
    assert sum(each.duplicates for each in pool.ranges.values()) == 8
    assert sum(each.sentences for each in pool.ranges.values()) == 4 * 20 + 2


def test_near_duplicates_are_in_no_pool_and_not_counted(tmp_path):
    texts = some_texts(12)
    corpus = dataclasses.replace(tokenized(tmp_path, [texts]), near_duplicates_dropped=True)
    dropped = _digests_of(texts[3:])
    (tmp_path / ".work" / "near_duplicates").write_bytes(dropped.tobytes())
    pool = open_pool(corpus, 0, DATA)
    assert sorted(texts_of(pool.documents, range(3))) == sorted(texts[:3])
    assert sum(each.near_duplicates for each in pool.ranges.values()) == 9
    alone = dropped[np.arange(8)]  # one more document is left
    (tmp_path / ".work" / "near_duplicates").write_bytes(
        np.sort(np.concatenate([alone, _digests_of(texts[:3])])).tobytes()
    )
    survey = survey_split(corpus, corpus.plan.ranges_in("train"), DATA)
    assert survey == SplitSurvey(documents=1, has_next=True)


def test_pools_of_a_large_split_are_bounded_and_disjoint(tmp_path):
    texts = some_texts(300)
    # As if there were so many tokens that a range has a third of a pool.
    corpus = tokenized(tmp_path, [texts], shards=12, tokens=12 * 8_000_000 // 3)
    pools = {corpus.plan.pool_of(number) for number in range(12)}
    assert pools == {range(0, 3), range(3, 6), range(6, 9), range(9, 12)}
    seen = Counter()
    for numbers in pools:
        pool = open_pool(corpus, numbers[1], DATA)
        assert set(pool.ranges) == set(numbers)
        seen.update(texts_of(pool.documents, range(len(pool.documents))))
    assert seen == Counter(texts)


@pytest.mark.parametrize("copies", [1, 5])
def test_a_document_alone_in_its_pool_gets_another_one_of_the_split(tmp_path, copies):
    texts = some_texts(2)
    corpus = tokenized(tmp_path, [texts * copies], shards=400, tokens=400 * 8_000_000)
    numbers = corpus.plan.ranges_of(documents_of(texts).digests)
    assert numbers[0] != numbers[1]
    for number, text in zip(numbers, texts, strict=True):
        assert corpus.plan.pool_of(number) == range(number, number + 1)
        pool = open_pool(corpus, number, DATA)
        assert len(pool.documents) == 2
        assert texts_of(pool.documents, pool.ranges[number].own) == [text]


def test_a_pool_never_crosses_splits(tmp_path):
    texts = some_texts(40)
    corpus = tokenized(tmp_path, [texts], shards=3, fraction=0.4)
    held_out = corpus.plan.held_out(documents_of(texts).digests)
    assert 5 < held_out.sum() < 35
    for number in range(corpus.plan.ranges):
        pool = open_pool(corpus, number, DATA)
        expected = corpus.plan.held_out(pool.documents.digests)
        is_heldout = number in corpus.plan.ranges_in("validation")
        assert (expected == is_heldout).all()
        assert len(pool.documents) == (held_out == is_heldout).sum()


def test_without_next_sentences_a_range_is_read_alone_even_with_one_document(tmp_path):
    texts = some_texts(2)
    corpus = tokenized(tmp_path, [texts], shards=400)
    number = int(corpus.plan.ranges_of(documents_of(texts).digests)[0])
    for objective in ("none", "sentence_order"):
        data = dataclasses.replace(DATA, sentence_objective=objective)
        assert len(open_pool(corpus, number, data).documents) == 1


def test_documents_of_a_split_are_counted_without_copies_up_to_two(tmp_path):
    for count in range(4):
        corpus = tokenized(tmp_path / str(count), [some_texts(count) * 3 + some_texts(count)], 50)
        survey = survey_split(corpus, corpus.plan.ranges_in("train"), DATA)
        assert survey == SplitSurvey(min(count, 2), has_next=count > 0)
        survey = survey_split(corpus, corpus.plan.ranges_in("validation"), DATA)
        assert survey == SplitSurvey(0, has_next=False)


@pytest.mark.parametrize("texts,has_next", [
    (["one", "two", "three"], False),
    (["one", "two", "three four"], True),
    (["one", "two", "x" * 62], True),  # longer than a row, and counts as two
    (["one", "two", "x" * 61], False),
])  # fmt: skip
def test_whether_a_document_has_a_next_sentence_is_found_wherever_it_is(tmp_path, texts, has_next):
    corpus = tokenized(tmp_path, [[text] for text in texts], shards=90)
    survey = survey_split(corpus, corpus.plan.ranges_in("train"), DATA)
    assert survey == SplitSurvey(2, has_next)


def test_the_pool_is_read_once_for_all_its_ranges_and_again_for_another_preparation(
    tmp_path, monkeypatch
):
    corpus = tokenized(tmp_path, [some_texts(20)])
    reads = []
    read_ranges = document_pool.read_ranges
    monkeypatch.setattr(
        document_pool, "read_ranges", lambda *given: reads.append(given) or read_ranges(*given)
    )
    for number in range(6):
        open_pool(corpus, number, DATA)
    assert len(reads) == 1
    # The same folder, made anew with other documents by the same process.
    corpus = tokenized(tmp_path, [some_texts(20, seed=1)], preparation="two")
    pool = open_pool(corpus, 0, DATA)
    assert sorted(texts_of(pool.documents, range(20))) == sorted(some_texts(20, seed=1))


def test_sentences_longer_than_a_row_are_divided_but_counted_as_they_are(tmp_path):
    corpus = tokenized(tmp_path, [["x" * 200 + " yy", "zz"]], shards=1)
    pool = open_pool(corpus, 0, DATA)
    assert np.diff(pool.documents.sentences).max() <= 61
    assert pool.ranges[0].sentences == 3
