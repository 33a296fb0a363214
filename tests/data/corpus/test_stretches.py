import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data.corpus.stretches import cut

# As sentences are: no white space at the ends, none empty.
sentences = st.lists(
    st.text("ab ç\u0915\u093f", min_size=1).map(str.strip).filter(len), max_size=30
)


@given(document=sentences, size=st.integers(1, 60))
def test_stretches_hold_all_letters_in_order_and_have_about_the_size(document, size):
    stretches = list(cut(document, size))
    text = "".join("".join(stretch) for stretch in stretches)
    assert text.replace(" ", "") == "".join(document).replace(" ", "")
    lengths = [sum(map(len, stretch)) for stretch in stretches]
    assert all(length >= size for length in lengths[:-1])
    assert all(length < 3 * size for length in lengths)
    if len(lengths) > 1:
        assert lengths[-1] >= size / 2
    assert all(sentence.strip() == sentence != "" for stretch in stretches for sentence in stretch)


@given(document=sentences, size=st.integers(1, 60))
def test_no_sentence_that_fits_is_cut(document, size):
    kept = [sentence for sentence in document if len(sentence) <= size]
    assert [sentence for stretch in cut(kept, size) for sentence in stretch] == kept


@given(document=sentences, more=sentences, size=st.integers(1, 60))
def test_a_document_that_grows_at_its_end_keeps_all_stretches_but_the_last(document, more, size):
    before, after = list(cut(document, size)), list(cut(document + more, size))
    assert before[:-1] == after[: len(before[:-1])]


@given(document=sentences)
def test_zero_cuts_nothing_and_no_sentence_is_no_document(document):
    assert list(cut(document, 0)) == ([document] if document else [])
    assert list(cut([], 5)) == []


@pytest.mark.parametrize("sentence,size,parts", [
    ("one two three four", 9, ["one two", "three", "four"]),
    ("ACGTACGTAC", 4, ["ACGT", "ACGT", "AC"]),
    ("किकिकि", 3, ["कि", "कि", "कि"]),  # the vowel sign stays with its letter
])  # fmt: skip
def test_a_sentence_longer_than_a_stretch_is_cut_between_words_else_between_letters(
    sentence, size, parts
):
    assert [part for stretch in cut([sentence], size) for part in stretch] == parts
