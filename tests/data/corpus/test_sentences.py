import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data.corpus.sentences import split_sentences


@pytest.mark.parametrize("text,expected", [
    ("One ends. Two begins! Three?", ["One ends.", "Two begins!", "Three?"]),
    ("Mr. Smith met J. R. Doe. They spoke.", ["Mr. Smith met J. R. Doe.", "They spoke."]),
    ("It costs 3.50 dollars, e.g. Today.", ["It costs 3.50 dollars, e.g. Today."]),
    ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
    ("See os.path. and so on.", ["See os.path. and so on."]),
    ("A title\n\nA paragraph\nof two lines.", ["A title", "A paragraph of two lines."]),
    ("今天很好。我们去吗？去！", ["今天很好。", "我们去吗？", "去！"]),
    ("他说：“好的。”然后走了。", ["他说：“好的。”", "然后走了。"]),
    ('他说："好的。"然后走了。', ['他说："好的。"', "然后走了。"]),
    ('他走了。"好的。"她说。', ["他走了。", '"好的。"', "她说。"]),
    ("他来了（真的。)然后走。", ["他来了（真的。)", "然后走。"]),
    ("See Fig. 3 and p. 5 (i.e. This one). Go!", ["See Fig. 3 and p. 5 (i.e. This one).", "Go!"]),
    ("(It ends.) [So does it.] Yes", ["(It ends.)", "[So does it.]", "Yes"]),
    ("Python 3.11.2 用于测试。圆周率是3.14。", ["Python 3.11.2 用于测试。", "圆周率是3.14。"]),
    ("J.R.R. Tolkien, Ph.D. He wrote. E.g. This.", ["J.R.R. Tolkien, Ph.D. He wrote.", "E.g. This."]),
    ("On Jan. 5 Gen. Lee left the U.S.A. Then rain.", ["On Jan. 5 Gen. Lee left the U.S.A. Then rain."]),
    ("好。Mr. Smith来了。", ["好。", "Mr. Smith来了。"]),
    ("  \n\n \t", []),
])  # fmt: skip
def test_sentences_end_where_a_reader_would_end_them(text, expected):
    assert split_sentences(text) == expected


@given(st.text(max_size=300))
def test_no_character_is_lost_but_white_space(text):
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())
    assert all(sentence == " ".join(sentence.split()) != "" for sentence in split_sentences(text))
