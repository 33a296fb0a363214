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
    ((), "sentence1\tsentence2\tlabel\na\tb\tx\npremise\thypothesis\tlabel\n", 3),
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
    # Elements of forms and of user interfaces: label is a class, once or often.
    ((), "text\tlabel\nName:\tlabel\nJohn\tvalue\n", "", [("Name:", "label"), ("John", "value")]),
    ((), "text\tlabel\nTitle\tlabel\nOK\tbutton\n", "", [("Title", "label"), ("OK", "button")]),
    (("text", "label"), "Name\tlabel\nJohn\tvalue\n", "", [("Name", "label"), ("John", "value")]),
    (("text", "label"), "text\tclass\nx\tclass\n", "", [("text", "class"), ("x", "class")]),
    # A text that is its column's name but for capitals, of a class that another line has.
    (("name", "label"), "Name\tlabel\nAge\tlabel\n", "", [("Name", "label"), ("Age", "label")]),
    ((), "name\tlabel\nAge\tlabel\nName\tlabel\n", "", [("Age", "label"), ("Name", "label")]),
    ((), "text\tlabel\nLabel\ttext\nHi\ttext\n", "", [("Label", "text"), ("Hi", "text")]),
    (("text", "label"), "label\ttext\nHi\ttext\n", "", [("label", "text"), ("Hi", "text")]),
    # A number beside them.
    (("id", "text", "label"), "7\ttext\tclass\n8\tx\ty\n", "", [("text", "class"), ("x", "y")]),
    # Texts and classes of one word.
    ((), "text\tlabel\ntitle\tcategory\nreview\ttopic\n", "", [("title", "category"), ("review", "topic")]),
    (("text", "label"), "review\ttopic\nx\ttopic\n", "", [("review", "topic"), ("x", "topic")]),
])  # fmt: skip
def test_classes_and_texts_that_are_words_like_names_stay(
    tmp_path, columns, content, label_column, expected
):
    has_names = "name" in (*columns, content[:4])
    options = {"label_column": label_column, "text_columns": ("name",) if has_names else ()}
    assert read(tmp_path, content, columns, **options) == expected
    (tmp_path / "train.tsv").unlink()
    assert read(tmp_path, content.replace("\t", ","), columns, "train.csv", **options) == expected


def test_label_is_a_class_of_lines_with_their_label_first(tmp_path):
    content = "label User name\nvalue John\nlabel text\nlabel Age\n"
    expected = [("User name", "label"), ("John", "value"), ("text", "label"), ("Age", "label")]
    assert read(tmp_path, content, form="label_text") == expected
    assert read(tmp_path, "label User name\nvalue John\n", form="label_text") == expected[:2]


def test_a_label_in_a_list_of_another_line_is_a_class(tmp_path):
    content = "text\tclass\nx\ta,class\n"
    options = {"columns": ("text", "label"), "label_type": "classes"}
    expected = [("text", ("class",)), ("x", ("a", "class"))]
    assert read(tmp_path, content, **options) == expected
    with pytest.raises(UserError, match="line 1: found a header"):
        read(tmp_path, content.replace("a,class", "a"), **options)


def test_headers_of_several_files_are_no_class(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\n{name}\tx\n")
    files = {"train": ("a.tsv", "b.tsv")}
    location = DataLocation(str(tmp_path), files, ("sentence", "label"))
    with pytest.raises(UserError, match="a.tsv, line 1: found a header"):
        read_examples(location, "train")


def test_a_header_where_labels_are_numbers_is_named_as_one(tmp_path):
    with pytest.raises(UserError, match="line 1: found a header"):
        read(
            tmp_path,
            "text\tscore\na\t1\n",
            ("sentence", "value"),
            label_column="value",
            label_type="number",
        )


def test_an_object_names_its_fields_so_its_values_are_no_header(tmp_path):
    line = '{"text": "text", "label": "label"}\n'
    assert read(tmp_path, line, name="train.jsonl") == [("text", "label")]
