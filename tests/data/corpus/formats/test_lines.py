import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.data.corpus.formats import decoding
from bertjax.data.corpus.formats.extent import WHOLE
from bertjax.data.corpus.formats.lines import read_lines
from bertjax.data.corpus.formats.source_file import file_at
from tests.data.corpus.test_sources import documents

# Universal newlines: https://docs.python.org/3/library/functions.html#open, `newline`.
ENDS = {"Unix": "\n", "Windows": "\r\n", "old Mac": "\r", "converted twice": "\r\r\n"}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_lines_end_as_on_any_system(tmp_path, end):
    path = tmp_path / "a.txt"
    lines = ["One sentence.", "Another.", "", "A second document.", ""]
    path.write_bytes(end.join(lines).encode())
    assert documents(path) == [["One sentence.", "Another."], ["A second document."]]
    assert documents(path, format="line") == [
        ["One sentence."],
        ["Another."],
        ["A second document."],
    ]
    path.write_bytes(end.join(['{"text": "One."}', "", '{"text": "Two."}', ""]).encode())
    assert documents(path, format="jsonl") == [["One."], ["Two."]]


@given(text=st.text(st.sampled_from("ab \r\n\u00e9\u2028"), max_size=60), size=st.integers(5, 30))
def test_lines_do_not_depend_on_the_blocks_in_which_they_are_read(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(text.encode())
    expected = text
    while "\r\n" in expected:
        expected = expected.replace("\r\n", "\n")
    expected = expected.replace("\r", "\n").removesuffix("\n").split("\n")
    lines, part = [], ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "BLOCK_BYTES", size)
        for _, line, ends in read_lines(file_at(str(path)), DataConfig(), WHOLE):
            part += line
            if ends:
                lines.append(part)
                part = ""
    # Where the file has no line end at its end, the last part may not be told to be the last.
    lines.append(part)
    assert [line for line in lines if line] == [line for line in expected if line]


def test_the_end_of_a_long_line_is_no_blank_line(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_bytes(b"abcdefgh \nThe next line.\n")
    # The first block is all of the line but its end.
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 9)
    (document,) = documents(path)
    assert " ".join(document) == "abcdefgh The next line."
