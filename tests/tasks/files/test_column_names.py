import logging

import pytest

from bertjax.errors import UserError
from bertjax.tasks.files.tables import read_table

pytestmark = pytest.mark.quick

HEADED = "text\tlabel\na\tx\nText\tLabel\nb\ty\ntext\tlabel\n"


def read(folder, content, columns=(), labels=("label",)):
    (folder / "a.tsv").write_text(content)
    return [
        tuple(row.values.values())
        for row in read_table(folder / "a.tsv", columns=columns, labels=labels)
    ]


@pytest.mark.parametrize("labels", [(), ("label",), ("Label",), ("gold", "label")])
def test_a_repeated_header_of_other_capitals_is_left_out(tmp_path, caplog, labels):
    with caplog.at_level(logging.INFO, "bertjax"):
        assert read(tmp_path, HEADED, labels=labels) == [("a", "x"), ("b", "y")]
    assert caplog.messages[-1].endswith("and are no examples: 2 (first: line 3)")


def test_it_is_an_example_if_another_line_has_its_label_but_not_if_it_equals_the_header(
    tmp_path, caplog
):
    content = f"{HEADED}c\tLabel\nd\tlabel\n"
    with caplog.at_level(logging.INFO, "bertjax"):
        rows = read(tmp_path, content)
    assert rows == [("a", "x"), ("Text", "Label"), ("b", "y"), ("c", "Label"), ("d", "label")]
    assert caplog.messages[-1].endswith("and are no examples: 1 (first: line 5)")


def test_the_first_line_beside_given_columns_is_judged_in_the_same_way(tmp_path):
    columns = ("text", "label")
    assert read(tmp_path, "Text\tLabel\na\tx\n", columns) == [("a", "x")]
    assert read(tmp_path, "Text\tlabel\na\tlabel\n", columns) == [("Text", "label"), ("a", "label")]
    assert read(tmp_path, "text\tlabel\na\tlabel\n", columns) == [("a", "label")]


def test_names_in_another_order_are_an_example_if_another_line_has_its_label(tmp_path):
    swapped = "text\tlabel\nlabel\ttext\n"
    with pytest.raises(UserError, match="line 2: found a header with the columns label, text"):
        read(tmp_path, f"{swapped}a\tx\n")
    assert read(tmp_path, f"{swapped}a\ttext\n") == [("label", "text"), ("a", "text")]
