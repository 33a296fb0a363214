import gzip
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.tasks.files.tables import has_named_fields, read_table

pytestmark = pytest.mark.quick

# What no line of TSV can hold: its marks, and what UTF-8 cannot.
CELL = st.text(
    st.characters(blacklist_characters="\t\n\r", blacklist_categories=["Cs"]), max_size=8
)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def values(path, *options):
    return [dict(row.values) for row in read_table(path, *options)]


def error_of(path, *options):
    with pytest.raises(UserError) as caught:
        list(read_table(path, *options))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_quotes_in_tsv_are_text_and_only_a_line_feed_ends_a_line(tmp_path):
    rows = 'a\tb\n"open\tand "closed"\r\nx\x85y\u2028z\tlast\n'
    path = write(tmp_path / "a.tsv", b"\xef\xbb\xbf" + rows.encode())
    assert values(path) == [
        {"a": '"open', "b": 'and "closed"'},
        {"a": "x\x85y\u2028z", "b": "last"},
    ]


@given(st.lists(st.tuples(CELL, CELL), max_size=6), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_tsv_gives_back_what_was_written_with_its_lines(tmp_path_factory, cells, ending, ends):
    text = ending.join(["a\tb", *("\t".join(row) for row in cells)]) + (ending if ends else "")
    path = write(tmp_path_factory.mktemp("tsv") / "t.tsv", text)
    rows = list(read_table(path))
    assert [(row.values["a"], row.values["b"], row.number) for row in rows] == [
        (a, b, i) for i, (a, b) in enumerate(cells, 2)
    ]


def test_given_columns_name_those_of_a_file_without_header_unless_its_first_line_is_one(tmp_path):
    path = write(tmp_path / "a.txt", "1\tone\n\n2\ttwo\n")
    assert values(path, ("label", "sentence")) == [
        {"label": "1", "sentence": "one"},
        {"label": "2", "sentence": "two"},
    ]
    assert [row.number for row in read_table(path, ("label", "sentence"))] == [1, 3]
    headed = write(tmp_path / "b.tsv", "index\tsentence\n0\tone\n")
    assert values(headed, ("source", "label", "star", "sentence"), ("sentence",)) == [
        {"index": "0", "sentence": "one"}
    ]
    assert len(values(headed, ("label", "sentence"))) == 2


def test_csv_has_real_quoting_and_names_the_line_a_record_begins_in(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"one, ""two""\nthree",x\n\nfour,y\n')
    rows = list(read_table(path))
    assert [dict(row.values) for row in rows] == [
        {"text": 'one, "two"\nthree', "label": "x"},
        {"text": "four", "label": "y"},
    ]
    assert [row.number for row in rows] == [2, 5]


@pytest.mark.parametrize("name", ["x.tsv.GZ", "x.TSV.gz", "X.Tsv.Gz"])
def test_capitals_in_an_ending_mean_nothing(tmp_path, name):
    path = write(tmp_path / name, gzip.compress(b"a\tb\n1\t2\n"))
    assert values(path) == [{"a": "1", "b": "2"}]


def test_json_lines_keep_their_types_and_compressed_files_are_read_by_their_ending(tmp_path):
    lines = [{"text": "é 完", "label": ["a", "b"]}, {"text": "", "label": None, "n": 1.5}]
    content = "\n\n".join(map(json.dumps, lines)).encode()
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(content))
    assert values(path) == lines
    assert [row.number for row in read_table(path)] == [1, 3]
    whole_pair = write(tmp_path / "b.json", r'{"text": "\ud83d\ude00"}')
    assert values(whole_pair) == [{"text": "\U0001f600"}]


RTE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE entailment-corpus SYSTEM "rte.dtd">
<entailment-corpus>
<pair id="8" {}><t>Oil &amp; gas
 rose</t><h>It rose</h></pair>
</entailment-corpus>
"""


@pytest.mark.parametrize("attribute,label", [
    ('value="TRUE"', "entailment"),
    ('value="FALSE"', "not_entailment"),
    ('entailment="YES" task="IR"', "entailment"),
    ('entailment="NO"', "not_entailment"),
    ('entailment="UNKNOWN"', "not_entailment"),
    ('task="QA"', None),
])  # fmt: skip
def test_pairs_of_every_challenge_have_glues_labels(tmp_path, attribute, label):
    (row,) = read_table(write(tmp_path / "a.xml", RTE.format(attribute)))
    assert (row.number, row.values["label"]) == (4, label)
    assert (row.values["id"], row.values["sentence1"], row.values["sentence2"]) == (
        "8",
        "Oil & gas rose",
        "It rose",
    )


@pytest.mark.parametrize("name,content,message", [
    ("a.tsv", b"a\tb\n1\t2\n1\t2\t3\n", "line 3: found 3 columns, expected 2 (a, b)"),
    ("a.tsv", b"a\tb\n\n1\n", "line 3: found 1 columns, expected 2 (a, b)"),
    ("a.csv", b'a,b\n"x\ny",2\n1\n', "line 4: found 1 columns, expected 2 (a, b)"),
    ("a.tsv", b"a\ta\n1\t2\n", "a.tsv: found the columns a, a, expected each name once"),
    ("a.tsv", b"a\nx\nbad \xff\n", "line 3: found the byte 0xff, which is not UTF-8, expected UTF-8"),
    ("a.csv", b'a,b\n"x,2\n', "line 2: found broken CSV (unexpected end of data), expected quotes that are closed"),
    ("a.jsonl", b'{"a": 1}\n{"a"\n', "line 2: found broken JSON ("),
    ("a.json", b"1\n", "line 1: found JSON of type int, expected one object a line"),
    ("a.jsonl", b'{"a": "\\ud83d"}\n', "line 1: found half a surrogate pair, expected whole text"),
    ("a.xml", b"<c>\n<pair id='1' value='MAYBE'><t>a</t><h>b</h></pair></c>", "line 2: found the label 'MAYBE'"),
    ("a.xml", b"<c>\n\n<pair id='1'><t>a</t></pair></c>", "line 3: found a pair without <t> or <h>, expected both"),
    ("a.xml", b"<c>\n<pair>", "line 2: found broken XML ("),
    ("a.doc", b"", "a.doc: found the ending '.doc', expected one of .tsv, .txt, .csv, .jsonl"),
    ("a.tsv.gz", gzip.compress(b"a\tb\n1\t2\n" * 99, mtime=0)[:-9], "a.tsv.gz: is truncated or no whole .gz file ("),
])  # fmt: skip
def test_bad_tables_are_named_with_their_line(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    result = error_of(path)
    assert result.startswith(str(path))
    assert message in result


def test_a_missing_file_and_a_missing_column_say_what_there_is(tmp_path):
    assert "no.tsv: cannot be read (No such file" in error_of(tmp_path / "no.tsv")
    (row,) = read_table(write(tmp_path / "a.tsv", "a\tb\n1\t2\n"))
    assert row.value("b") == "2"
    with pytest.raises(
        UserError, match=r"a.tsv, line 2: found the columns a, b, expected 'c' among them"
    ):
        row.value("c")


def test_ragged_lines_are_counted_where_that_is_asked_for(tmp_path):
    path = write(tmp_path / "a.tsv", "a\tb\n1\n1\t2\n1\t2\t3\n")
    ragged = Counter()
    assert values(path, (), (), ragged) == [{"a": "1", "b": "2"}]
    assert ragged == {str(path): 2}


@pytest.mark.parametrize("name,named", [
    ("a.json", True), ("a.JSONL.gz", True), ("a.parquet", True), ("a.tsv", False), ("a.conll", False), ("json", False),
])  # fmt: skip
def test_the_ending_tells_whether_rows_name_their_fields(tmp_path, name, named):
    assert has_named_fields(tmp_path / name) == named
