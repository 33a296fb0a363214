from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.data.preparation.documents import Documents, joined, split_long_sentences
from bertjax.data.preparation.inputs.instances import make_sequences, max_sentence_length
from bertjax.data.row_layout import RowLayout, bert_layout

LAYOUT = bert_layout(2, 3)


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


def divided(documents, options):
    """Divide sentences that are longer than a row, as `make_sequences` needs them."""
    return split_long_sentences(documents, max_sentence_length(options, LAYOUT))


sentence_lengths = st.integers(1, 90) | st.sampled_from([1, 61, 62, 5000])
document_lists = st.lists(
    st.lists(sentence_lengths, min_size=1, max_size=8), min_size=1, max_size=8
)
several_documents = st.lists(
    st.lists(sentence_lengths, min_size=1, max_size=8), min_size=2, max_size=8
)


@given(
    lengths=several_documents, seed=st.integers(0, 2**31), short=st.sampled_from([0.0, 0.5, 1.0])
)
def test_every_instance_is_two_spans_that_fit_each_within_one_document(lengths, seed, short):
    options = config(short_seq_probability=short)
    documents = divided(documents_of(lengths), options)
    spans = make_sequences(documents, options, LAYOUT, np.random.default_rng(seed))
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


@given(lengths=short_documents, seed=st.integers(0, 2**31), data=st.data())
def test_each_sentence_of_the_own_documents_is_used_and_each_label_is_right(lengths, seed, data):
    """With rows so long that nothing is cut: where B begins tells whether it follows A.

    Every sentence is in an A or in a true B, of its own document and no other: what a random B
    displaces comes back.
    """
    documents = documents_of(lengths)
    first = data.draw(st.integers(0, len(lengths) - 1))
    own = range(first, data.draw(st.integers(first + 1, len(lengths))))
    options = config(max_seq_length=512, short_seq_probability=data.draw(st.sampled_from([0, 1])))
    counts = Counter()
    spans = make_sequences(documents, options, LAYOUT, np.random.default_rng(seed), own, counts)
    a_end = spans.a_begin + spans.a_length
    a_document, b_document = owner(documents, spans.a_begin), owner(documents, spans.b_begin)
    random_next = spans.label == 1
    assert np.array_equal(owner(documents, a_end - 1), a_document)
    assert np.array_equal(owner(documents, spans.b_begin + spans.b_length - 1), b_document)
    assert np.array_equal(spans.b_begin[~random_next], a_end[~random_next])
    assert (b_document[~random_next] == a_document[~random_next]).all()
    assert (b_document[random_next] != a_document[random_next]).all()
    for bound in (spans.a_begin, a_end, spans.b_begin, spans.b_begin + spans.b_length):
        assert np.isin(bound, documents.sentences).all()
    seen = np.zeros(len(documents.tokens), int)
    for a, n, b, m, label in zip(*spans, strict=True):
        seen[a : a + n] += 1
        if not label:
            seen[b : b + m] += 1
    begin = documents.sentences[documents.documents[own.start]]
    end = documents.sentences[documents.documents[own.stop]]
    assert (seen[begin:end] == 1).all()
    assert not seen[:begin].any()
    assert not seen[end:].any()
    # A has no next where it ends its document.
    ends_document = np.isin(a_end, documents.sentences[documents.documents])
    assert counts["pairs_without_next"] == ends_document.sum()
    assert random_next[ends_document].all()
    assert counts["pairs_with_next"] == (~ends_document).sum()
    assert counts["random_next"] == (random_next & ~ends_document).sum()


@pytest.mark.parametrize("sentence", [1, 12, 61, 5000])
@pytest.mark.parametrize("short", [0.0, 0.1, 1.0])
def test_half_of_the_pairs_with_a_next_sentence_are_random(sentence, short):
    """Of long sentences too: one that reaches the target alone does not make B random."""
    options = config(short_seq_probability=short)
    lengths = [[sentence] * max(4, 60_000 // sentence)] * 40
    documents = divided(documents_of(lengths), options)
    counts = Counter()
    spans = make_sequences(documents, options, LAYOUT, np.random.default_rng(0), counts=counts)
    pairs = counts["pairs_with_next"]
    assert pairs > 3000
    assert counts["random_next"] / pairs == pytest.approx(0.5, abs=3 * np.sqrt(0.25 / pairs))
    assert counts["pairs_without_next"] <= 40
    assert spans.label.sum() == counts["random_next"] + counts["pairs_without_next"]


def test_a_chunk_of_one_sentence_always_gets_a_random_next():
    spans = make_sequences(documents_of([[50]] * 200), config(), LAYOUT, np.random.default_rng(0))
    assert len(spans.label > 0) == 200
    assert (spans.label > 0).all()


def test_every_other_document_is_as_likely_to_give_a_random_next():
    documents = documents_of([[8] * 500] * 20)  # of one length, so that each is asked equally often
    pair_counts = np.zeros((20, 20))
    for seed in range(5):
        spans = make_sequences(documents, config(), LAYOUT, np.random.default_rng(seed))
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
        documents,
        config(max_seq_length=512, short_seq_probability=0),
        LAYOUT,
        np.random.default_rng(1),
    )
    true = ~(spans.label > 0)
    assert true.sum() > 10
    assert np.array_equal(spans.b_begin[true], (spans.a_begin + spans.a_length)[true])


def test_a_tenth_of_the_instances_aims_at_a_shorter_length():
    documents = documents_of([[1] * 4000] * 40)
    spans = make_sequences(
        documents, config(short_seq_probability=0.1), LAYOUT, np.random.default_rng(2)
    )
    total = spans.a_length + spans.b_length
    short = (total < 61).mean()
    # 10 %, less the 1 in 60 of them that draw the full length, plus the ends of documents.
    assert short == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / len(total)) + 0.02)
    lengths = total[total < 61]
    assert lengths.min() < 8
    assert 22 < lengths.mean() < 40


def test_truncation_cuts_the_longer_side_on_both_ends():
    documents = documents_of([[60], [60]] * 300)
    spans = make_sequences(
        documents, config(short_seq_probability=0), LAYOUT, np.random.default_rng(3)
    )
    assert set(spans.a_length) == {31}
    assert set(spans.b_length) == {30}
    front = (
        spans.a_begin
        - documents.sentences[np.searchsorted(documents.sentences, spans.a_begin, "right") - 1]
    ) / 29
    assert front.mean() == pytest.approx(0.5, abs=0.02)
    assert front.std() == pytest.approx(np.sqrt(0.25 / 29), rel=0.2)


def test_a_random_next_may_come_from_every_other_document_of_the_pool():
    documents = documents_of([[8] * 400] * 12)
    own = range(3, 6)
    counted = np.zeros((12, 12), int)
    for seed in range(10):
        spans = make_sequences(documents, config(), LAYOUT, np.random.default_rng(seed), own)
        random_next = spans.label == 1
        a, b = owner(documents, spans.a_begin), owner(documents, spans.b_begin)
        np.add.at(counted, (a[random_next], b[random_next]), 1)
    assert not counted[[0, 1, 2, *range(6, 12)]].any()
    for number in own:
        others = np.delete(counted[number], number)
        assert counted[number, number] == 0
        expected = others.mean()
        assert expected > 20
        # Chi square with 10 degrees of freedom: mean 10, standard deviation sqrt(20).
        assert ((others - expected) ** 2 / expected).sum() < 10 + 5 * np.sqrt(20)


def test_a_single_sentence_gets_a_random_next_wherever_there_are_two_documents():
    documents = documents_of([[9], [4, 4, 4]])
    spans = make_sequences(documents, config(), LAYOUT, np.random.default_rng(0), range(1))
    assert spans.label.tolist() == [1]
    assert spans.a_begin.tolist() == [0]
    assert owner(documents, spans.b_begin).tolist() == [1]


def test_a_lone_document_is_an_error_and_no_document_gives_nothing():
    for lengths in ([[9] * 30], [[9]]):
        with pytest.raises(ValueError, match="found one document, expected two or more"):
            make_sequences(documents_of(lengths), config(), LAYOUT, np.random.default_rng(0))
    assert (
        len(make_sequences(documents_of([]), config(), LAYOUT, np.random.default_rng(0)).a_begin)
        == 0
    )


def every_token_once(documents, spans):
    """Count how often each token of the documents is in an A or a B."""
    seen = np.zeros(len(documents.tokens), int)
    for a, n, b, m, _ in zip(*spans, strict=True):
        seen[a : a + n] += 1
        seen[b : b + m] += 1
    return seen


def test_a_sentence_longer_than_a_row_counts_as_several_of_like_length():
    documents, options = documents_of([[1000], [5]]), config(short_seq_probability=0)
    spans = make_sequences(divided(documents, options), options, LAYOUT, np.random.default_rng(0))
    seen = every_token_once(documents, spans)[:1000]
    assert (seen > 0).mean() > 0.45  # half of the pairs are cut to make room for a random next
    options = config(sentence_objective="none")
    full = make_sequences(divided(documents, options), options, LAYOUT, np.random.default_rng(0))
    assert full.a_length.tolist().count(5) == 1
    assert set(full.a_length) == {5, 58, 59}


@given(lengths=document_lists, seed=st.integers(0, 2**31), short=st.sampled_from([0.0, 0.5]))
def test_sentence_order_has_neighbors_of_one_document_in_either_order(lengths, seed, short):
    options = config(sentence_objective="sentence_order", short_seq_probability=short)
    documents = divided(documents_of(lengths), options)
    counts = Counter()
    spans = make_sequences(documents, options, LAYOUT, np.random.default_rng(seed), counts=counts)
    assert (
        (spans.a_length >= 1) & (spans.b_length >= 1) & (spans.a_length + spans.b_length <= 61)
    ).all()
    assert np.array_equal(owner(documents, spans.a_begin), owner(documents, spans.b_begin))
    assert np.array_equal(spans.b_begin < spans.a_begin, spans.label > 0)
    assert every_token_once(documents, spans).max(initial=0) <= 1
    assert counts["pairs"] == len(spans.label)
    assert counts["swapped_pairs"] == spans.label.sum()


def test_a_sentence_of_one_token_alone_makes_no_pair_in_order_and_is_counted():
    counts = Counter()
    options = config(sentence_objective="sentence_order")
    documents = documents_of([[1], [1], [2], [1, 1]])
    spans = make_sequences(documents, options, LAYOUT, np.random.default_rng(0), counts=counts)
    assert (spans.a_length == 1).all()
    assert counts["unmade_pairs"] == 2
    assert counts["pairs"] == len(spans.label) == 2


def test_half_of_the_pairs_are_swapped_and_no_token_is_lost():
    documents = documents_of([[4] * 500] * 40)
    options = config(
        sentence_objective="sentence_order", short_seq_probability=0, max_seq_length=63
    )
    spans = make_sequences(documents, options, LAYOUT, np.random.default_rng(0))
    assert spans.label.mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / len(spans.label)))
    assert (every_token_once(documents, spans) == 1).all()


@given(lengths=document_lists, seed=st.integers(0, 2**31))
def test_full_sentences_hold_every_token_once_and_as_many_sentences_as_fit(lengths, seed):
    options = config(sentence_objective="none")
    documents = divided(documents_of(lengths), options)
    spans = make_sequences(documents, options, LAYOUT, np.random.default_rng(seed))
    assert (every_token_once(documents, spans) == 1).all()
    assert not spans.b_length.any()
    assert not spans.label.any()
    assert spans.lengths(LAYOUT).max() <= 64
    first = owner(documents, spans.a_begin)
    assert np.array_equal(first, owner(documents, spans.a_begin + spans.a_length - 1))


def test_full_sentences_end_where_the_next_sentence_would_not_fit():
    spans = make_sequences(
        documents_of([[30, 30, 30, 2, 40]]),
        config(sentence_objective="none"),
        LAYOUT,
        np.random.default_rng(0),
    )
    assert spans.a_length.tolist() == [60, 32, 40]


@given(document_lists)
def test_joined_documents_are_one_with_separators_between(lengths):
    documents = documents_of(lengths)
    whole = joined(documents, (3,))
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
    apart = make_sequences(documents, options, LAYOUT, np.random.default_rng(0))
    across = make_sequences(joined(documents, (3,)), options, LAYOUT, np.random.default_rng(0))
    assert apart.lengths(LAYOUT).mean() < 15
    assert across.lengths(LAYOUT)[:-1].min() > 55


@pytest.mark.parametrize(
    "layout", [LAYOUT, RowLayout((2,), (2,), (), 0), RowLayout((2,), (), (), 0)]
)
def test_the_longest_rows_are_full_whatever_special_tokens_a_layout_has(layout):
    for objective in ("none", "next_sentence", "sentence_order"):
        options = config(sentence_objective=objective, short_seq_probability=0.0)
        documents = documents_of([[1] * 300, [1] * 200])
        spans = make_sequences(documents, options, layout, np.random.default_rng(0))
        assert spans.lengths(layout).max() == 64, objective
