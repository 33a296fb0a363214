import csv
import io
import logging

import pytest

from bertjax.errors import UserError
from bertjax.tasks.files.tables import read_table

pytestmark = pytest.mark.quick


def read(folder, name, content, *options):
    (folder / name).write_bytes(content.encode())
    return [dict(row.values) for row in read_table(folder / name, *options)]


@pytest.mark.parametrize(
    "header", ["sentence\tlabel", "Sentence\tLABEL", " sentence \tlabel", "\ufeffsentence\tlabel\r"]
)
def test_a_first_line_of_the_given_names_is_a_header_and_that_is_said(tmp_path, caplog, header):
    with caplog.at_level(logging.INFO, "bertjax"):
        rows = read(tmp_path, "a.tsv", f"{header}\none\tx\n", ("sentence", "label"))
    assert rows == [{"sentence": "one", "label": "x"}]
    assert caplog.messages == [
        f"{tmp_path / 'a.tsv'}: its first line has the names of the columns, and is no example"
    ]


def test_a_first_line_with_a_part_of_the_names_is_an_example(tmp_path):
    assert len(read(tmp_path, "a.tsv", "sentence\tx\none\tx\n", ("sentence", "label"))) == 2


def test_a_header_in_another_order_than_the_given_names_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path, "a.csv", "label,sentence\nx,one\n", ("sentence", "label"))
    assert "a.csv, line 1: found a header with the columns label, sentence, expected sentence," in (
        str(caught.value)
    )


@pytest.mark.parametrize("columns", [(), ("sentence", "label")])
@pytest.mark.parametrize("name,separator", [("a.tsv", "\t"), ("a.csv", ",")])
def test_a_header_in_the_middle_is_left_out_and_counted(tmp_path, caplog, columns, name, separator):
    headers = ["sentence|label", "Sentence|LABEL", '"sentence"|"label"', "SENTENCE|label "]
    lines = ["sentence|label", "one|x", *headers, "sentence|y", "two|z"]
    content = "".join(line.replace("|", separator) + "\n" for line in lines)
    with caplog.at_level(logging.INFO, "bertjax"):
        rows = read(tmp_path, name, content, columns)
    expected = [("one", "x"), ("sentence", "y"), ("two", "z")]
    assert [(row["sentence"], row["label"]) for row in rows] == expected
    assert caplog.messages[-1] == (
        f"{tmp_path / name}: lines that repeat the names of the columns, and are no examples: 4"
        " (first: line 3)"
    )


@pytest.mark.parametrize("columns", [(), ("sentence", "label")])
def test_a_header_in_the_middle_in_another_order_is_refused(tmp_path, columns):
    with pytest.raises(UserError) as caught:
        read(tmp_path, "a.tsv", "sentence\tlabel\none\tx\nlabel\tsentence\ny\ttwo\n", columns)
    assert "a.tsv, line 3: found a header with the columns label, sentence, expected sentence," in (
        str(caught.value)
    )


def test_a_text_alone_may_be_the_name_of_its_column(tmp_path):
    assert read(tmp_path, "a.tsv", "text\none\ntext\n") == [{"text": "one"}, {"text": "text"}]


@pytest.mark.parametrize("columns", [(), ("sentence", "label")])
def test_a_header_in_quotes_is_refused_where_quotes_are_text(tmp_path, columns):
    content = '"sentence"\t"label"\n"one"\t"x"\n'
    with pytest.raises(UserError) as caught:
        read(tmp_path, "a.tsv", content, columns)
    assert 'a.tsv, line 1: found a header in quotes, "sentence", "label", expected names' in (
        str(caught.value)
    )
    # The first advice for R, whose default also writes a column of the rows' names.
    assert "in R: quote=FALSE, row.names=FALSE), or as .csv with commas" in str(caught.value)
    assert read(tmp_path, "a.tsv", content.replace('"', ""), columns) == [
        {"sentence": "one", "label": "x"}
    ]
    assert read(tmp_path, "a.csv", content.replace("\t", ","), columns) == [
        {"sentence": "one", "label": "x"}
    ]


@pytest.mark.parametrize("characters", [131_072, 131_073, 1_000_000])
def test_a_csv_cell_has_any_length(tmp_path, characters):
    before = csv.field_size_limit()
    buffer = io.StringIO()
    text = 'é "quoted", and\nmore ' * (characters // 20) + "x" * (characters % 20)
    csv.writer(buffer).writerows([("text", "label"), (text, "a"), ("b", "b" * characters)])
    rows = read(tmp_path, "a.csv", buffer.getvalue())
    assert rows == [{"text": text, "label": "a"}, {"text": "b", "label": "b" * characters}]
    assert csv.field_size_limit() >= before
