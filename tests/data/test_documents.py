import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data import documents as docs
from tests.data.test_instances import document_lists, documents_of


def texts(documents):
    """Documents as nested lists of ids."""
    bounds = documents.sentences
    return [
        [documents.tokens[bounds[s] : bounds[s + 1]].tolist() for s in range(begin, end)]
        for begin, end in zip(documents.documents, documents.documents[1:], strict=False)
    ]


@given(document_lists, st.data())
def test_taking_slicing_and_joining_move_whole_documents(lengths, data):
    whole = documents_of(lengths)
    order = data.draw(st.permutations(range(len(lengths))))
    assert texts(docs.take(whole, np.array(order))) == [texts(whole)[i] for i in order]
    cut = data.draw(st.integers(0, len(lengths)))
    parts = [docs.slice_of(whole, 0, cut), docs.slice_of(whole, cut, len(lengths))]
    assert texts(docs.join(parts)) == texts(whole)
    assert texts(docs.join([])) == []


def test_saved_documents_load_as_they_were(tmp_path):
    whole = documents_of([[3, 1], [7]])
    docs.save(tmp_path / "part", whole)
    assert texts(docs.load(tmp_path / "part")) == texts(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["part"]


def test_a_digest_tells_sentences_apart():
    assert docs.digest(["a", "b"]) == docs.digest(["a", "b"])
    assert len({docs.digest(s) for s in (["a", "b"], ["b", "a"], ["ab"], ["a"], ["a", "b", ""])}) == 5
