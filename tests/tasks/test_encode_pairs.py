"""Texts and pairs as rows, held to a plain loop."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.tasks.encode_pairs import encode_pairs
from bertjax.tasks.examples import TextExample
from tests.tasks.classification.test_task import TEXT, TOKENIZER


def pair_cut_by_bert(a, b, longest):
    """One piece at a time, as the paper's code does."""
    a, b = list(a), list(b)
    while len(a) + len(b) > longest:
        (a if len(a) > len(b) else b).pop()
    return a, b


@given(st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=12), st.integers(4, 20))
@example(
    [("cat " * 9, "dog " * 9), ("cat " * 9, "dog"), ("cat", "dog " * 9), ("cat " * 9, None)], 8
)
def test_rows_are_those_of_a_plain_loop(texts, longest):
    examples = [TextExample(str(i), text, pair) for i, (text, pair) in enumerate(texts)]
    ids, offsets, second, cut = encode_pairs(TOKENIZER, examples, longest)
    assert (ids.dtype, offsets.dtype, second.dtype) == (np.int32, np.int64, np.int32)
    assert len(offsets) == len(texts) + 1
    were_cut = 0
    for i, (text, pair) in enumerate(texts):
        a, b = (TOKENIZER.encode_batch([t or ""])[0].tolist() for t in (text, pair))
        left_a, left_b = pair_cut_by_bert(a, b, longest - 2 - (pair is not None))
        expected = [TOKENIZER.cls_id, *left_a, TOKENIZER.sep_id]
        assert second[i] == len(expected)
        expected += [*left_b, TOKENIZER.sep_id] if pair is not None else []
        assert ids[offsets[i] : offsets[i + 1]].tolist() == expected
        were_cut += (left_a, left_b) != (a, b)
    assert cut == were_cut
