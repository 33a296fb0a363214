import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.data.documents import Documents
from bertjax.data.instances import layout, make_instances

CLS, SEP, PAD = 2, 3, 0


def documents_of(lengths):
    """Documents given as lists of sentence lengths; token `t` has the id `10 + t`, so that an id is a place."""
    flat = [length for document in lengths for length in document]
    tokens = np.arange(10, 10 + sum(flat), dtype=np.int32)
    sentences = np.concatenate([[0], np.cumsum(flat)]).astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum([len(d) for d in lengths])]).astype(np.int64)
    return Documents(tokens, sentences, bounds, np.zeros((len(lengths), 16), np.uint8))


def drawn_documents(seed, count=200, longest=40):
    rng = np.random.default_rng(seed)
    return documents_of([rng.integers(1, longest, rng.integers(1, 30)).tolist() for _ in range(count)])


def owner(documents, places):
    """The document that each token place belongs to."""
    sentence = np.searchsorted(documents.sentences, places, side="right") - 1
    return np.searchsorted(documents.documents, sentence, side="right") - 1


def config(**changes):
    return DataConfig(**{"max_seq_length": 64, "max_predictions_per_seq": 10} | changes)


sentence_lengths = st.integers(1, 90) | st.sampled_from([1, 61, 62, 5000])
document_lists = st.lists(st.lists(sentence_lengths, min_size=1, max_size=8), min_size=1, max_size=8)


@given(lengths=document_lists, seed=st.integers(0, 2**31), short=st.sampled_from([0.0, 0.5, 1.0]))
def test_every_instance_is_two_spans_that_fit_each_within_one_document(lengths, seed, short):
    documents = documents_of(lengths)
    spans = make_instances(documents, config(short_seq_probability=short), np.random.default_rng(seed))
    assert ((spans.a_length >= 1) & (spans.b_length >= 1) & (spans.a_length + spans.b_length <= 61)).all()
    a_first, a_last = owner(documents, spans.a_begin), owner(documents, spans.a_begin + spans.a_length - 1)
    b_first, b_last = owner(documents, spans.b_begin), owner(documents, spans.b_begin + spans.b_length - 1)
    assert np.array_equal(a_first, a_last)
    assert np.array_equal(b_first, b_last)
    assert np.array_equal(a_first != b_first, spans.is_random_next)
    after = spans.b_begin >= spans.a_begin + spans.a_length
    assert (after | spans.is_random_next).all()


short_documents = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=6), min_size=2, max_size=8)


@given(lengths=short_documents, seed=st.integers(0, 2**31))
def test_what_a_random_next_displaces_comes_back(lengths, seed):
    """Where nothing is long enough to be cut, every token of the corpus is in an A or a true B."""
    documents = documents_of(lengths)
    options = config(max_seq_length=512, short_seq_probability=0.0)
    seen = np.zeros(len(documents.tokens), bool)
    for a, n, b, m, random_next in zip(*make_instances(documents, options, np.random.default_rng(seed)), strict=True):
        seen[a : a + n] = True
        if not random_next:
            seen[b : b + m] = True
    assert seen.all()


def test_half_of_the_second_sentences_are_random_where_there_is_a_choice():
    documents = documents_of([[1] * 4000] * 40)  # chunks of one sentence, always random, only at a document's end
    spans = make_instances(documents, config(short_seq_probability=0), np.random.default_rng(0))
    rows = len(spans.is_random_next)
    assert rows > 3000
    assert spans.is_random_next.mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / rows) + 40 / rows)


def test_a_chunk_of_one_sentence_always_gets_a_random_next():
    spans = make_instances(documents_of([[70]] * 200), config(), np.random.default_rng(0))
    assert len(spans.is_random_next) == 200
    assert spans.is_random_next.all()


def test_every_other_document_is_as_likely_to_give_a_random_next():
    documents = documents_of([[8] * 500] * 20)  # of one length, so that each is asked equally often
    found = np.zeros((20, 20))
    for seed in range(5):
        spans = make_instances(documents, config(), np.random.default_rng(seed))
        pairs = owner(documents, spans.a_begin), owner(documents, spans.b_begin)
        np.add.at(found, tuple(p[spans.is_random_next] for p in pairs), 1)
    assert not found.diagonal().any()
    others = found[~np.eye(20, dtype=bool)]
    expected = others.mean()
    assert expected > 5
    assert abs(((others - expected) ** 2 / expected).sum() - len(others)) < 5 * np.sqrt(2 * len(others))


def test_true_next_follows_at_once_before_truncation():
    documents = documents_of([[5] * 12] * 50)
    spans = make_instances(documents, config(max_seq_length=512, short_seq_probability=0), np.random.default_rng(1))
    true = ~spans.is_random_next
    assert true.sum() > 10
    assert np.array_equal(spans.b_begin[true], (spans.a_begin + spans.a_length)[true])


def test_a_tenth_of_the_instances_aims_at_a_shorter_length():
    documents = documents_of([[1] * 4000] * 40)
    spans = make_instances(documents, config(short_seq_probability=0.1), np.random.default_rng(2))
    total = spans.a_length + spans.b_length
    short = (total < 61).mean()
    # 10 %, less the 1 in 60 of them that draw the full length, plus the ends of documents.
    assert short == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / len(total)) + 0.02)
    lengths = total[total < 61]
    assert lengths.min() < 8
    assert 22 < lengths.mean() < 40


def test_truncation_cuts_the_longer_side_on_both_ends():
    documents = documents_of([[200], [200]] * 300)
    spans = make_instances(documents, config(short_seq_probability=0), np.random.default_rng(3))
    assert set(spans.a_length) == {31}
    assert set(spans.b_length) == {30}
    front = (
        spans.a_begin - documents.sentences[np.searchsorted(documents.sentences, spans.a_begin, "right") - 1]
    ) / 169
    assert front.mean() == pytest.approx(0.5, abs=0.02)
    assert front.std() == pytest.approx(np.sqrt(0.25 / 169), rel=0.2)


def test_a_lone_document_gives_true_pairs_only_and_a_lone_sentence_nothing():
    spans = make_instances(documents_of([[9] * 30]), config(), np.random.default_rng(0))
    assert len(spans.a_begin) > 0
    assert not spans.is_random_next.any()
    assert len(make_instances(documents_of([[9]]), config(), np.random.default_rng(0)).a_begin) == 0
    assert len(make_instances(documents_of([]), config(), np.random.default_rng(0)).a_begin) == 0


def test_the_layout_is_cls_a_sep_b_sep_with_its_segments():
    documents = documents_of([[3, 2], [4]])
    spans = make_instances(documents, config(max_seq_length=12, short_seq_probability=0), np.random.default_rng(0))
    rows = layout(spans, documents.tokens, CLS, SEP, PAD, 12)
    for i in range(len(spans.a_begin)):
        a = documents.tokens[spans.a_begin[i] : spans.a_begin[i] + spans.a_length[i]].tolist()
        b = documents.tokens[spans.b_begin[i] : spans.b_begin[i] + spans.b_length[i]].tolist()
        padding = 12 - len(a) - len(b) - 3
        assert rows["input_ids"][i].tolist() == [CLS, *a, SEP, *b, SEP] + [PAD] * padding
        assert rows["segment_ids"][i].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1) + [0] * padding
        assert rows["input_mask"][i].tolist() == [1] * (12 - padding) + [0] * padding
        assert rows["next_sentence_labels"][i].tolist() == [int(spans.is_random_next[i])]
