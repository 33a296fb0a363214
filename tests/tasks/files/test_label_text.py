import pytest

from bertjax.errors import UserError
from bertjax.tasks.classification.examples import read_examples
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.files.tables import read_table

pytestmark = pytest.mark.quick


def read(folder, content, encoding="utf-8", name="train_5500.label"):
    (folder / name).write_bytes(content.encode(encoding))
    rows = read_table(folder / name, encoding=encoding, form="label_text")
    return [(row.number, dict(row.values)) for row in rows]


def test_raw_trec_is_read_with_its_coarse_classes(tmp_path):
    content = "DESC:manner How did serfdom develop ?\nENTY:food What are Crêpes ?\n\nNUM 12\r\n"
    assert read(tmp_path, content, "latin-1") == [
        (1, {"label": "DESC:manner", "coarse_label": "DESC", "text": "How did serfdom develop ?"}),
        (2, {"label": "ENTY:food", "coarse_label": "ENTY", "text": "What are Crêpes ?"}),
        (4, {"label": "NUM", "coarse_label": "NUM", "text": "12"}),
    ]


def test_labels_of_fasttext_lose_their_prefix_and_may_be_several_and_anywhere(tmp_path):
    content = (
        "__label__a-b , what is it\n__label__x\t__label__y one __label__z\n"
        "a text __label__x:1 with more\nlast __label__b\nno_label x__label__y\n"
        "__label__a\u3000b c\n"
    )
    assert read(tmp_path, content) == [
        (1, {"label": "a-b", "coarse_label": "a-b", "text": ", what is it"}),
        (2, {"label": ["x", "y", "z"], "text": "one"}),
        (3, {"label": "x:1", "coarse_label": "x", "text": "a text with more"}),
        (4, {"label": "b", "coarse_label": "b", "text": "last"}),
        (5, {"label": None, "coarse_label": None, "text": "no_label x__label__y"}),
        (6, {"label": "a\u3000b", "coarse_label": "a\u3000b", "text": "c"}),
    ]


@pytest.mark.parametrize("label_type,label", [("class", "a,b"), ("classes", ("a,b",))])
def test_a_comma_in_a_label_of_fasttext_never_parts_it(tmp_path, label_type, label):
    lines = "__label__a,b one\n__label__c two\n"
    if label_type == "classes":
        lines += "__label__a,b __label__c three\n"
    (tmp_path / "train.txt").write_text(lines)
    source = DataLocation(str(tmp_path), form="label_text")
    examples = read_examples(source, "train", label_type=label_type)
    assert examples[0].label == label
    if label_type == "classes":
        assert examples[2].label == ("a,b", "c")


@pytest.mark.parametrize("content,message", [
    ("__label__ text\n", "line 1: found __label__ without a name, expected a label such as __label__NAME"),
    ("DESC what\nDESC a __label__x\n", "line 2: found a label that begins with __label__, expected none"),
])  # fmt: skip
def test_labels_of_fasttext_in_the_wrong_place_are_refused(tmp_path, content, message):
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert message in str(caught.value)


@pytest.mark.parametrize("line", ["DESC:manner", "__label__x __label__y", " 1 "])
def test_a_line_without_a_text_is_named(tmp_path, line):
    with pytest.raises(UserError) as caught:
        read(tmp_path, f"{line}\n")
    assert "train_5500.label, line 1: found the label '" in str(caught.value)
    assert str(caught.value).endswith("alone, expected a label, a space and a text")
