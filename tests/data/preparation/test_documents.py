import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data.preparation import documents as docs
from tests.data.preparation.inputs.test_instances import document_lists, documents_of


def texts(documents):
    """Return documents as nested lists of ids."""
    bounds = documents.sentences
    return [
        [documents.tokens[bounds[s] : bounds[s + 1]].tolist() for s in range(begin, end)]
        for begin, end in zip(documents.documents, documents.documents[1:], strict=False)
    ]


@given(document_lists, st.data())
def test_taking_and_joining_move_whole_documents(lengths, data):
    whole = documents_of(lengths)
    order = data.draw(st.permutations(range(len(lengths))))
    assert texts(docs.take(whole, np.array(order))) == [texts(whole)[i] for i in order]
    cut = data.draw(st.integers(0, len(lengths)))
    parts = [docs.take(whole, np.arange(0, cut)), docs.take(whole, np.arange(cut, len(lengths)))]
    assert texts(docs.join(parts)) == texts(whole)
    assert texts(docs.join([])) == []


@given(document_lists)
def test_packed_documents_unpack_as_they_were(lengths):
    whole = documents_of(lengths)
    whole.digests[:] = np.arange(16 * len(lengths)).reshape(-1, 16)
    again = docs.unpack(docs.pack(whole))
    for name, values in whole._asdict().items():
        assert np.array_equal(getattr(again, name), values), name


def test_a_digest_tells_sentences_apart():
    assert docs.digest(["a", "b"]) == docs.digest(["a", "b"])
    assert (
        len({docs.digest(s) for s in (["a", "b"], ["b", "a"], ["ab"], ["a"], ["a", "b", ""])}) == 5
    )
