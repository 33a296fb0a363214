import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from bertjax.errors import UserError
from bertjax.tasks.files.parquet_rows import BATCH_ROWS
from bertjax.tasks.files.tables import read_table

pytestmark = pytest.mark.quick


def write(folder, columns, features=None, name="a.parquet"):
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    parquet.write_table(table, folder / name)
    return folder / name


def values(path):
    return [dict(row.values) for row in read_table(path)]


def error_of(path):
    with pytest.raises(UserError) as caught:
        list(read_table(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_keep_their_types_and_null_is_none(tmp_path):
    columns = {
        "text": pa.array(["完", None, ""]),
        "label": pa.array([1.0, None, 2.5]),
        "tags": pa.array([["a", "b"], [], None]),
        "flag": pa.array([True, False, None]),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
    }
    path = write(tmp_path, columns)
    assert values(path) == [
        {"text": "完", "label": 1.0, "tags": ["a", "b"], "flag": True, "kind": "x"},
        {"text": None, "label": None, "tags": [], "flag": False, "kind": "y"},
        {"text": "", "label": 2.5, "tags": None, "flag": None, "kind": "x"},
    ]
    assert [row.where for row in read_table(path)][2] == f"{path}, row 3"


def test_rows_of_all_batches_are_numbered_in_order(tmp_path):
    count = 2 * BATCH_ROWS + 1
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"n": list(range(count))}), path, row_group_size=700)
    assert [(row.number, row.values["n"]) for row in read_table(path)] == [
        (number + 1, number) for number in range(count)
    ]


CLASSES = {"names": ["neg", "pos"], "_type": "ClassLabel"}


@pytest.mark.parametrize("of_lists", [
    {"feature": CLASSES, "length": -1, "_type": "Sequence"},
    {"feature": CLASSES, "_type": "List"},
    [CLASSES],
])  # fmt: skip
def test_numbers_of_classes_get_the_names_that_are_stored_with_them(tmp_path, of_lists):
    columns = {"label": [1, -1, 0], "tags": [[0, 1], [], [1]], "n": [1, 0, 1]}
    features = {
        "label": CLASSES,
        "tags": of_lists,
        "n": {"dtype": "int64", "_type": "Value"},
        "gone": CLASSES,
    }
    assert values(write(tmp_path, columns, features)) == [
        {"label": "pos", "tags": ["neg", "pos"], "n": 1},
        {"label": None, "tags": [], "n": 0},
        {"label": "neg", "tags": ["pos"], "n": 1},
    ]


def test_what_cannot_be_read_is_named(tmp_path):
    outside = write(tmp_path, {"label": [0, 2]}, {"label": CLASSES})
    assert error_of(outside).endswith(
        "row 2: label: found the class 2, expected 0 to 1, as the file has 2 names of classes"
    )
    text = pa.array([b"fine", b"\xff"]).cast(pa.binary()).view(pa.string())
    assert error_of(write(tmp_path, {"text": text})).endswith(
        "a.parquet, rows 1 to 2: found bytes that are not UTF-8 in a column of text, expected UTF-8"
    )
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    assert "found the columns a, a, expected each name once" in error_of(tmp_path / "twice.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PK\x03\x04" + b"0" * 99)
    assert error_of(tmp_path / "b.parquet").endswith("found a zip archive, expected Parquet")
    (tmp_path / "c.parquet").write_text("text,label\n")
    assert "c.parquet: cannot be read as Parquet (" in error_of(tmp_path / "c.parquet")
    assert "no.parquet: cannot be read as Parquet (No such file" in error_of(
        tmp_path / "no.parquet"
    )
    assert "found compressed Parquet, expected" in error_of(tmp_path / "a.parquet.gz")
    whole = write(tmp_path, {"text": ["a"] * 99}, name="d.parquet")
    whole.write_bytes(whole.read_bytes()[:-20])
    assert "d.parquet: cannot be read as Parquet (" in error_of(whole)
