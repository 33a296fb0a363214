"""Texts and pairs as rows, held to a plain loop."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.tasks.encode_pairs import encode_pairs
from bertjax.tasks.examples import TextExample
from tests.data.test_row_layout import LAYOUTS, plain_row, with_layout
from tests.tasks.classification.test_task import TEXT, TOKENIZER


def pair_cut_by_bert(a, b, longest):
    """One piece at a time, as the paper's code does."""
    a, b = list(a), list(b)
    while len(a) + len(b) > longest:
        (a if len(a) > len(b) else b).pop()
    return a, b


LONG = [("cat " * 9, "dog " * 9), ("cat " * 9, "dog"), ("cat", "dog " * 9), ("cat " * 9, None)]


@pytest.mark.parametrize("name", LAYOUTS)
@given(st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=12), st.integers(1, 17))
@example(LONG, 5)
def test_rows_are_those_of_a_plain_loop(name, texts, room):
    layout = LAYOUTS[name]
    tokenizer, longest = with_layout(TOKENIZER, layout), room + layout.pair_specials
    examples = [TextExample(str(i), text, pair) for i, (text, pair) in enumerate(texts)]
    ids, offsets, second, cut = encode_pairs(tokenizer, examples, longest)
    assert (ids.dtype, offsets.dtype, second.dtype) == (np.int32, np.int64, np.int32)
    assert len(offsets) == len(texts) + 1
    were_cut = 0
    for i, (text, pair) in enumerate(texts):
        a, b = (TOKENIZER.encode_batch([t or ""])[0].tolist() for t in (text, pair))
        left_a, left_b = pair_cut_by_bert(
            a, b, room if pair is not None else longest - layout.single_specials
        )
        expected, segments = plain_row(layout, left_a, left_b if pair is not None else None)
        assert second[i] == len(expected) - sum(segments)
        assert ids[offsets[i] : offsets[i + 1]].tolist() == expected
        were_cut += (left_a, left_b) != (a, b)
    assert cut == were_cut
