import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.tasks.files.tables import read_table

pytestmark = pytest.mark.quick

FIELDS = st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(max_size=6))
OBJECTS = st.lists(FIELDS, min_size=1, max_size=5)


def read(folder, content):
    path = folder / "a.json"
    path.write_bytes(content.encode("utf-8"))
    return list(read_table(path))


@given(OBJECTS, st.sampled_from([None, 0, 2]), st.sampled_from(["array", "data", "lines"]))
def test_an_array_gives_the_rows_that_its_objects_give_line_by_line(
    tmp_path_factory, objects, indent, form
):
    if form == "lines":
        content = "\n".join(map(json.dumps, objects))
    else:
        whole = objects if form == "array" else {"version": "1", "data": objects}
        content = "\ufeff" + json.dumps(whole, indent=indent, ensure_ascii=False) + "\r\n"
    rows = read(tmp_path_factory.mktemp("json"), content)
    assert [row.values for row in rows] == objects
    assert {row.unit for row in rows} == {"line" if form == "lines" else "item"}


def test_one_line_with_a_field_data_of_other_values_is_a_row(tmp_path):
    (row,) = read(tmp_path, '{"data": ["a"], "label": 1}\n')
    assert (row.values, row.where) == (
        {"data": ["a"], "label": 1},
        f"{tmp_path / 'a.json'}, line 1",
    )
    assert len(read(tmp_path, '{"data": [{}]}\n{"data": [{}]}\n')) == 2


@pytest.mark.parametrize("content,message", [
    ('[{"a": 1}, 2]', "a.json, item 2: found JSON of type int, expected an object"),
    ('[{"a": 1},\n\n{"a": }]', "a.json, line 3: found broken JSON (Expecting value"),
    ('[{"a": 1}]\n[{"a": 1}]', "a.json, line 2: found broken JSON (Extra data"),
    ('{\n "a": 1,\n "b": [2]}', "a.json: found one object with the fields a, b, expected one object a line, or an array"),
    ('[{"a": "x"},\n{"a": "\\ud800"}]', "a.json, item 2: found half a surrogate pair, expected whole text"),
    ("[" * 100_000, "a.json, line 1: found broken JSON ("),
])  # fmt: skip
def test_what_is_no_array_of_objects_is_named_with_its_item_or_line(tmp_path, content, message):
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


DIGITS = "9" * 5000


@pytest.mark.parametrize("name,content,place", [
    ("a.jsonl", '{"a": 1}\n{"a": ' + DIGITS + "}\n", ", line 2"),
    ("a.json", "[\n" + DIGITS + "]\n", ""),
])  # fmt: skip
def test_a_number_that_python_reads_no_longer_is_named_as_one(tmp_path, name, content, place):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        list(read_table(tmp_path / name))
    found = f"{tmp_path / name}{place}: found a number of more than 4,300 digits, expected "
    assert str(caught.value).startswith(found)
