import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.data.preparation.documents import Documents
from bertjax.data.preparation.instances import joined, make_sequences


def documents_of(lengths):
    """Make documents of lists of sentence lengths.

    Token `t` has the id `10 + t`, so that an id tells its position.
    """
    flat = [length for document in lengths for length in document]
    tokens = np.arange(10, 10 + sum(flat), dtype=np.int32)
    sentences = np.concatenate([[0], np.cumsum(flat)]).astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum([len(d) for d in lengths])]).astype(np.int64)
    return Documents(tokens, sentences, bounds, np.zeros((len(lengths), 16), np.uint8))


def drawn_documents(seed, count=200, longest=40):
    rng = np.random.default_rng(seed)
    return documents_of(
        [rng.integers(1, longest, rng.integers(1, 30)).tolist() for _ in range(count)]
    )


def owner(documents, positions):
    """Return the document of the token at each position."""
    sentence = np.searchsorted(documents.sentences, positions, side="right") - 1
    return np.searchsorted(documents.documents, sentence, side="right") - 1


def config(**changes):
    length = changes.get("max_seq_length", 64)
    return DataConfig(
        **{"max_seq_length": 64, "max_predictions_per_seq": max(1, length // 6)} | changes
    )


sentence_lengths = st.integers(1, 90) | st.sampled_from([1, 61, 62, 5000])
document_lists = st.lists(
    st.lists(sentence_lengths, min_size=1, max_size=8), min_size=1, max_size=8
)


@given(lengths=document_lists, seed=st.integers(0, 2**31), short=st.sampled_from([0.0, 0.5, 1.0]))
def test_every_instance_is_two_spans_that_fit_each_within_one_document(lengths, seed, short):
    documents = documents_of(lengths)
    spans = make_sequences(
        documents, config(short_seq_probability=short), np.random.default_rng(seed)
    )
    assert (
        (spans.a_length >= 1) & (spans.b_length >= 1) & (spans.a_length + spans.b_length <= 61)
    ).all()
    a_first, a_last = (
        owner(documents, spans.a_begin),
        owner(documents, spans.a_begin + spans.a_length - 1),
    )
    b_first, b_last = (
        owner(documents, spans.b_begin),
        owner(documents, spans.b_begin + spans.b_length - 1),
    )
    assert np.array_equal(a_first, a_last)
    assert np.array_equal(b_first, b_last)
    assert np.array_equal(a_first != b_first, spans.label > 0)
    after = spans.b_begin >= spans.a_begin + spans.a_length
    assert (after | (spans.label > 0)).all()


short_documents = st.lists(
    st.lists(st.integers(1, 5), min_size=1, max_size=6), min_size=2, max_size=8
)


@given(lengths=short_documents, seed=st.integers(0, 2**31))
def test_what_a_random_next_displaces_comes_back(lengths, seed):
    """Every token of the corpus is in an A or a true B if nothing is long enough to be cut."""
    documents = documents_of(lengths)
    options = config(max_seq_length=512, short_seq_probability=0.0)
    seen = np.zeros(len(documents.tokens), bool)
    for a, n, b, m, random_next in zip(
        *make_sequences(documents, options, np.random.default_rng(seed)), strict=True
    ):
        seen[a : a + n] = True
        if not random_next:
            seen[b : b + m] = True
    assert seen.all()


def test_half_of_the_second_sentences_are_random_where_there_is_a_choice():
    documents = documents_of(
        [[1] * 4000] * 40
    )  # chunks of one sentence, always random, only at a document's end
    spans = make_sequences(documents, config(short_seq_probability=0), np.random.default_rng(0))
    rows = len(spans.label > 0)
    assert rows > 3000
    assert (spans.label > 0).mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / rows) + 40 / rows)


def test_a_chunk_of_one_sentence_always_gets_a_random_next():
    spans = make_sequences(documents_of([[50]] * 200), config(), np.random.default_rng(0))
    assert len(spans.label > 0) == 200
    assert (spans.label > 0).all()


def test_every_other_document_is_as_likely_to_give_a_random_next():
    documents = documents_of([[8] * 500] * 20)  # of one length, so that each is asked equally often
    pair_counts = np.zeros((20, 20))
    for seed in range(5):
        spans = make_sequences(documents, config(), np.random.default_rng(seed))
        pairs = owner(documents, spans.a_begin), owner(documents, spans.b_begin)
        np.add.at(pair_counts, tuple(p[(spans.label > 0)] for p in pairs), 1)
    assert not pair_counts.diagonal().any()
    others = pair_counts[~np.eye(20, dtype=bool)]
    expected = others.mean()
    assert expected > 5
    assert abs(((others - expected) ** 2 / expected).sum() - len(others)) < 5 * np.sqrt(
        2 * len(others)
    )


def test_true_next_follows_at_once_before_truncation():
    documents = documents_of([[5] * 12] * 50)
    spans = make_sequences(
        documents, config(max_seq_length=512, short_seq_probability=0), np.random.default_rng(1)
    )
    true = ~(spans.label > 0)
    assert true.sum() > 10
    assert np.array_equal(spans.b_begin[true], (spans.a_begin + spans.a_length)[true])


def test_a_tenth_of_the_instances_aims_at_a_shorter_length():
    documents = documents_of([[1] * 4000] * 40)
    spans = make_sequences(documents, config(short_seq_probability=0.1), np.random.default_rng(2))
    total = spans.a_length + spans.b_length
    short = (total < 61).mean()
    # 10 %, less the 1 in 60 of them that draw the full length, plus the ends of documents.
    assert short == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / len(total)) + 0.02)
    lengths = total[total < 61]
    assert lengths.min() < 8
    assert 22 < lengths.mean() < 40


def test_truncation_cuts_the_longer_side_on_both_ends():
    documents = documents_of([[60], [60]] * 300)
    spans = make_sequences(documents, config(short_seq_probability=0), np.random.default_rng(3))
    assert set(spans.a_length) == {31}
    assert set(spans.b_length) == {30}
    front = (
        spans.a_begin
        - documents.sentences[np.searchsorted(documents.sentences, spans.a_begin, "right") - 1]
    ) / 29
    assert front.mean() == pytest.approx(0.5, abs=0.02)
    assert front.std() == pytest.approx(np.sqrt(0.25 / 29), rel=0.2)


def test_a_lone_document_gives_true_pairs_only_and_a_lone_sentence_nothing():
    spans = make_sequences(documents_of([[9] * 30]), config(), np.random.default_rng(0))
    assert len(spans.a_begin) > 0
    assert not spans.label.any()
    assert len(make_sequences(documents_of([[9]]), config(), np.random.default_rng(0)).a_begin) == 0
    assert len(make_sequences(documents_of([]), config(), np.random.default_rng(0)).a_begin) == 0


def every_token_once(documents, spans):
    """Count how often each token of the documents is in an A or a B."""
    seen = np.zeros(len(documents.tokens), int)
    for a, n, b, m, _ in zip(*spans, strict=True):
        seen[a : a + n] += 1
        seen[b : b + m] += 1
    return seen


def test_a_sentence_longer_than_a_row_counts_as_several_of_like_length():
    documents = documents_of([[1000], [5]])
    spans = make_sequences(documents, config(short_seq_probability=0), np.random.default_rng(0))
    seen = every_token_once(documents, spans)[:1000]
    assert (seen > 0).mean() > 0.45  # half of the pairs are cut to make room for a random next
    full = make_sequences(documents, config(sentence_objective="none"), np.random.default_rng(0))
    assert full.a_length.tolist().count(5) == 1
    assert set(full.a_length) == {5, 58, 59}


@given(lengths=document_lists, seed=st.integers(0, 2**31), short=st.sampled_from([0.0, 0.5]))
def test_sentence_order_has_neighbors_of_one_document_in_either_order(lengths, seed, short):
    documents = documents_of(lengths)
    options = config(sentence_objective="sentence_order", short_seq_probability=short)
    spans = make_sequences(documents, options, np.random.default_rng(seed))
    assert (
        (spans.a_length >= 1) & (spans.b_length >= 1) & (spans.a_length + spans.b_length <= 61)
    ).all()
    assert np.array_equal(owner(documents, spans.a_begin), owner(documents, spans.b_begin))
    assert np.array_equal(spans.b_begin < spans.a_begin, spans.label > 0)
    assert every_token_once(documents, spans).max(initial=0) <= 1


def test_half_of_the_pairs_are_swapped_and_no_token_is_lost():
    documents = documents_of([[4] * 500] * 40)
    options = config(
        sentence_objective="sentence_order", short_seq_probability=0, max_seq_length=63
    )
    spans = make_sequences(documents, options, np.random.default_rng(0))
    assert spans.label.mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / len(spans.label)))
    assert (every_token_once(documents, spans) == 1).all()


@given(lengths=document_lists, seed=st.integers(0, 2**31))
def test_full_sentences_hold_every_token_once_and_as_many_sentences_as_fit(lengths, seed):
    documents = documents_of(lengths)
    spans = make_sequences(
        documents, config(sentence_objective="none"), np.random.default_rng(seed)
    )
    assert (every_token_once(documents, spans) == 1).all()
    assert not spans.b_length.any()
    assert not spans.label.any()
    assert spans.lengths.max() <= 64
    first = owner(documents, spans.a_begin)
    assert np.array_equal(first, owner(documents, spans.a_begin + spans.a_length - 1))


def test_full_sentences_end_where_the_next_sentence_would_not_fit():
    spans = make_sequences(
        documents_of([[30, 30, 30, 2, 40]]),
        config(sentence_objective="none"),
        np.random.default_rng(0),
    )
    assert spans.a_length.tolist() == [60, 32, 40]


@given(document_lists)
def test_joined_documents_are_one_with_separators_between(lengths):
    documents = documents_of(lengths)
    whole = joined(documents, 3)
    assert len(whole) == 1
    assert whole.sentences[-1] == len(whole.tokens) == len(documents.tokens) + len(lengths) - 1
    assert np.array_equal(whole.tokens[whole.tokens != 3], documents.tokens)
    ends = documents.sentences[documents.documents[1:-1]] + np.arange(len(lengths) - 1)
    assert np.flatnonzero(whole.tokens == 3).tolist() == ends.tolist()
    # A separator ends a sentence, and begins none.
    assert set(ends + 1) <= set(whole.sentences.tolist())


def test_rows_across_documents_are_full():
    documents = documents_of([[6, 7], [5]] * 200)
    options = config(sentence_objective="none", cross_documents=True)
    apart = make_sequences(documents, options, np.random.default_rng(0))
    across = make_sequences(joined(documents, 3), options, np.random.default_rng(0))
    assert apart.lengths.mean() < 15
    assert across.lengths[:-1].min() > 55
