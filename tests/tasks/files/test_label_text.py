import pytest

from bertjax.errors import UserError
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


def test_labels_of_fasttext_lose_their_prefix_and_may_be_several(tmp_path):
    content = "__label__a-b , what is it\n__label__x\t__label__y one __label__z\n"
    assert read(tmp_path, content) == [
        (1, {"label": "a-b", "coarse_label": "a-b", "text": ", what is it"}),
        (2, {"label": ["x", "y"], "text": "one __label__z"}),
    ]


@pytest.mark.parametrize("line", ["DESC:manner", "__label__x __label__y", " 1 "])
def test_a_line_without_a_text_is_named(tmp_path, line):
    with pytest.raises(UserError) as caught:
        read(tmp_path, f"0 good\n{line}\n")
    assert "train_5500.label, line 2: found the label '" in str(caught.value)
    assert str(caught.value).endswith("alone, expected a label, a space and a text")
