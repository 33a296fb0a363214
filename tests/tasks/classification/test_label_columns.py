import pytest

from bertjax.config import FinetuneConfig
from bertjax.errors import UserError
from bertjax.tasks.classification.examples import read_examples
from bertjax.tasks.classification.label_columns import LabelColumns
from bertjax.tasks.files.row import TableRow
from bertjax.tasks.files.splits import DataLocation

pytestmark = pytest.mark.quick

COLUMNS = LabelColumns(("toxic", "insult", "threat"), required=True)


def label_of(*values, columns=COLUMNS):
    return columns.label_of(TableRow("f", 3, dict(zip(columns.classes, values, strict=False))))


@pytest.mark.parametrize("values,label", [
    (("1", "0", "1"), ("toxic", "threat")),
    ((0, 0, 0), ()),
    ((1.0, True, "0.0"), ("toxic", "insult")),
    (("True", "False", "false"), ("toxic",)),
    ((None, float("nan"), ""), None),
    (("-1", -1, -1.0), None),
])  # fmt: skip
def test_each_column_of_zero_and_one_is_a_class(values, label):
    assert label_of(*values) == label


@pytest.mark.parametrize("values,message", [
    (("1", "", "0"), "f, line 3: found values in 2 of the 3 label columns, expected 0 or 1 in all of them"),
    (("1", "2", "0"), "f, line 3, insult: found '2', expected 0 or 1, as finetune.label_columns are"),
    ((0.5, 0, 0), "f, line 3, toxic: found 0.5, expected 0 or 1"),
    ((1, 0), "f, line 3: found the columns toxic, insult, expected 'threat' among them"),
])  # fmt: skip
def test_other_values_and_missing_ones_are_named(values, message):
    with pytest.raises(UserError) as caught:
        label_of(*values)
    assert str(caught.value).startswith(message)


def test_a_table_with_label_columns_has_all_of_them_as_classes(tmp_path, caplog):
    caplog.set_level("INFO", "bertjax")
    (tmp_path / "train.csv").write_text("id,text,toxic,insult\n7,a,1,0\n8,b,-1,-1\n9,c,0,0\n")
    (tmp_path / "test.csv").write_text("id,text\n7,a\n")
    source = DataLocation(str(tmp_path))
    options = {"label_type": "classes", "label_columns": ("toxic", "insult")}
    examples = read_examples(source, "train", **options)
    assert [(e.id, e.label, e.classes) for e in examples] == [
        ("7", ("toxic",), ("toxic", "insult")),
        ("9", (), ("toxic", "insult")),
    ]
    assert caplog.messages == [
        f"{tmp_path}, split train: examples without a label, which were left out: 1 of 3"
    ]
    (unlabelled,) = read_examples(source, "test", unlabelled=True, **options)
    assert unlabelled.label is None


@pytest.mark.parametrize("options,message", [
    ({"label_columns": ("a", "b")}, "finetune.label_columns: found ('a', 'b'), expected none, or finetune.label_type classes"),
    ({"label_columns": ("a",), "label_column": "a", "label_type": "classes"}, "expected none where finetune.label_column is given"),
    ({"label_columns": ("a", "a"), "label_type": "classes"}, "expected each name once"),
    ({"columns": ("a",), "file_form": "label_text"}, "finetune.columns: found ('a',), expected none where finetune.file_form"),
    ({"encoding": "rot13"}, "finetune.encoding: found rot13, expected the name of an encoding"),
    ({"encoding": "utf-16"}, "finetune.encoding: found utf-16, expected"),
    ({"encoding": "no such"}, "finetune.encoding: found no such, expected"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UserError, match=r"finetune\.") as caught:
        FinetuneConfig(**options)
    assert message in str(caught.value)
