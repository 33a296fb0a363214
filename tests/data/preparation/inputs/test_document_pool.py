import dataclasses
from collections import Counter

import numpy as np
import pytest

from bertjax.config import TokenizerConfig
from bertjax.data.preparation.inputs import document_pool
from bertjax.data.preparation.inputs.document_pool import forget_pool, open_pool
from bertjax.data.preparation.prepare import prepare
from bertjax.masking.static import unmask
from tests.data.preparation.corpora import config_of, rows_of
from tests.data.preparation.inputs.tokenized import (
    DATA,
    digests_of,
    documents_of,
    some_texts,
    texts_of,
    tokenized,
)


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
    dropped = digests_of(texts[3:])
    (tmp_path / ".work" / "near_duplicates").write_bytes(dropped.tobytes())
    pool = open_pool(corpus, 0, DATA)
    assert sorted(texts_of(pool.documents, range(3))) == sorted(texts[:3])
    assert sum(each.near_duplicates for each in pool.ranges.values()) == 9


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
