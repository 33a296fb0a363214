"""Files of rated pairs are read whole, or refused with the line."""

import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from bertjax.compression.rated_pairs import RatedPair, read_pairs, text_rows
from bertjax.errors import UserError
from tests.tasks.tiny import TOKENIZER


def written(folder, content):
    path = epath.Path(folder) / "pairs.tsv"
    path.write_bytes(content)
    return path


def test_pairs_without_a_score_are_left_out(tmp_path):
    content = "5\tone cat.\ta cat\n\tno\tscore\n0.5\ta\u2028b\tc\r\n".encode()
    assert read_pairs(written(tmp_path, content)) == (
        RatedPair(5.0, "one cat.", "a cat"),
        RatedPair(0.5, "a\u2028b", "c"),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "pairs.tsv:1: found 1 columns, expected 3"),
        (b"1\ta\tb\n2\ta\n", "pairs.tsv:2: found 2 columns, expected 3"),
        (b"1\ta\tb\nnan\ta\tb\n", "pairs.tsv:2: found the score 'nan', expected a number"),
        (b"1\ta\tb\n1e999\ta\tb\n", "pairs.tsv:2: found the score '1e999', expected a number"),
        (b"1\ta\tb\n\xff\ta\tb\n", "pairs.tsv:2: found bytes that are no UTF-8"),
        (b"1\ta\tb\n1\tc\td\n", "2 rated pairs with 1 different scores, expected two"),
        (b"\ta\tb\n", "0 rated pairs with 0 different scores"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_pairs(written(tmp_path, content))


@given(st.lists(st.text(alphabet="thecatdogxy .", max_size=40), min_size=1, max_size=5))
def test_each_text_becomes_a_row_with_its_special_tokens(texts):
    rows = text_rows(TOKENIZER, texts, 8)
    assert len(rows) == len(texts)
    for text, row in zip(texts, rows, strict=True):
        ids, _ = TOKENIZER.encode_batch([text])
        assert row.tolist() == [TOKENIZER.cls_id, *ids[:6].tolist(), TOKENIZER.sep_id]
