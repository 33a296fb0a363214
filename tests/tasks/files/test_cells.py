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


@pytest.mark.parametrize("characters", [131_072, 131_073, 1_000_000])
def test_a_csv_cell_has_any_length(tmp_path, characters):
    before = csv.field_size_limit()
    buffer = io.StringIO()
    text = 'é "quoted", and\nmore ' * (characters // 20) + "x" * (characters % 20)
    csv.writer(buffer).writerows([("text", "label"), (text, "a"), ("b", "b" * characters)])
    rows = read(tmp_path, "a.csv", buffer.getvalue())
    assert rows == [{"text": text, "label": "a"}, {"text": "b", "label": "b" * characters}]
    assert csv.field_size_limit() >= before
