import pytest

from bertjax.errors import UserError
from bertjax.tasks.classification.examples import read_examples
from bertjax.tasks.files.splits import DataLocation

pytestmark = pytest.mark.quick


def read(folder, content, columns=(), name="train.tsv", form="table", **options):
    (folder / name).write_text(content)
    location = DataLocation(str(folder), columns=columns, form=form)
    examples = read_examples(location, name.partition(".")[0], **options)
    return [(example.text, example.label) for example in examples]


@pytest.mark.parametrize("columns,content,line", [
    # A header of other names than those that are given.
    (("sentence", "label"), "text\tlabel\na\tx\n", 1),
    (("sentence", "label"), "Text\tSentiment\na\tx\n", 1),
    (("sentence", "label"), "'text'\t'label'\na\tx\n", 1),
    (("sentence", "label"), "whatever\tlabel\na\tx\n", 1),
    (("text", "spam"), "text\tlabel\na\tspam\n", 1),
    # Several files in one, whose headers differ.
    ((), "sentence\tlabel\na\tx\ntext\tlabel\nb\ty\n", 3),
    (("sentence", "label"), "a\tx\ntext\tclass\nb\ty\n", 2),
])  # fmt: skip
def test_a_header_of_other_names_is_refused(tmp_path, columns, content, line):
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, columns, label_column=columns[1] if columns else "")
    message = str(caught.value)
    assert f"train.tsv, line {line}: found a header, with the columns " in message
    assert "finetune.columns is for files without one" in message


def test_a_header_of_pairs_and_of_labels_behind_their_texts_is_refused(tmp_path):
    columns = ("sentence1", "sentence2", "label")
    with pytest.raises(UserError, match="line 1: found a header"):
        read(tmp_path, "premise\thypothesis\tgold_label\na\tb\tx\n", columns)
    with pytest.raises(
        UserError, match="line 1: found a header, with the columns label, label, text"
    ):
        read(tmp_path, "label text\nx a\n", form="label_text")


def test_a_test_set_without_labels_may_not_begin_with_a_header_either(tmp_path):
    with pytest.raises(UserError, match="test.tsv, line 1: found a header"):
        read(tmp_path, "text\none\n", ("sentence",), "test.tsv", unlabelled=True)


@pytest.mark.parametrize("columns,content,label_column,expected", [
    (("text", "spam"), "Win!\tspam\nHi\tham\n", "spam", [("Win!", "spam"), ("Hi", "ham")]),
    (("text", "topic"), "review\tgood\nx\ttopic\n", "topic", [("review", "good"), ("x", "topic")]),
    ((), "text\tlabel\ntext\tx\ntext\ty\n", "", [("text", "x"), ("text", "y")]),
])  # fmt: skip
def test_classes_and_texts_that_are_words_like_names_stay(
    tmp_path, columns, content, label_column, expected
):
    assert read(tmp_path, content, columns, label_column=label_column) == expected


def test_an_object_names_its_fields_so_its_values_are_no_header(tmp_path):
    line = '{"text": "text", "label": "label"}\n'
    assert read(tmp_path, line, name="train.jsonl") == [("text", "label")]
