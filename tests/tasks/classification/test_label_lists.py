import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.tasks.classification.examples import read_examples
from bertjax.tasks.classification.label_lists import ListedClasses, parse_list
from bertjax.tasks.files.row import TableRow
from bertjax.tasks.files.splits import DataLocation

pytestmark = pytest.mark.quick


def named(values, separator=","):
    """The classes of examples with these values as labels, and all classes by their places."""
    rows = [TableRow("f", number, {"label": value}) for number, value in enumerate(values, 1)]
    lists = ListedClasses()
    keys = []
    for row in rows:
        parsed = parse_list(separator, row.values["label"], row.where)
        keys.append(None if parsed is None else lists.add(parsed, row))
    classes, all_classes = lists.classes()
    return [None if key is None else classes[key] for key in keys], all_classes


BITS = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=5)
)


@given(BITS, st.sampled_from([int, float, bool, str]), st.sampled_from(["json", "python", "list"]))
def test_lists_of_zero_and_one_have_a_class_at_each_place(bits, kind, form):
    values = [[kind(int(bit)) for bit in row] for row in bits]
    if form != "list":
        values = [json.dumps(row) if form == "json" else repr(row) for row in values]
    classes = tuple(map(str, range(len(bits[0]))))
    expected = [tuple(str(i) for i, bit in enumerate(row) if bit) for row in bits]
    assert named(values) == (expected, classes)


@pytest.mark.parametrize("values,labels", [
    (["1,0,0", "0,1,1"], [("0",), ("1", "2")]),
    (["1.0 0.0", "0.0 0.0"], [("0",), ()]),
    ([[1.0], [0.0]], [("0",), ()]),
    ([[0, 1, 0], None, [1, 1, 0]], [("1",), None, ("0", "1")]),
    (["[0, 1, 0]", "", " ", "[0, 0, 0]", "nan"], [("1",), None, None, (), None]),
    (["0,1", "", "1,1"], [("1",), None, ("0", "1")]),
    ([[0, 1], [-1, -1], [float("nan")] * 2, [None, None]], [("1",), None, None, None]),
    (["(0, 1, 0)", "(1.,0.,1.)", "[True, False, True]"], [("1",), ("0", "2"), ("0", "2")]),
    (["[0. , 1.]"], [("1",)]),
])  # fmt: skip
def test_forms_of_places(values, labels):
    separator = " " if "1.0 0.0" in values else ","
    assert named(values, separator)[0] == labels


@pytest.mark.parametrize("values,labels", [
    ([[27], [0, 3], []], [("27",), ("0", "3"), ()]),
    ([[0], [1]], [("0",), ("1",)]),
    (["a, b", "b", "", "nan", float("nan"), None], [("a", "b"), ("b",), (), None, None, None]),
    (["['a', 'b c']", '["d"]', "[]"], [("a", "b c"), ("d",), ()]),
    (["['it\\'s', \"é\"]", '["\\u00e9"]'], [("it's", "é"), ("é",)]),
    ([["y", 2], 3, "z"], [("y", "2"), ("3",), ("z",)]),
    (["[A],[B]", "[A]"], [("[A]", "[B]"), ("[A]",)]),
    (["('a', 'b')", "('a',)", "('a')", "()", '("b", "c")'], [("a", "b"), ("a",), ("a",), (), ("b", "c")]),
    (["{'a', 'b'}", "frozenset({'b', 'a'})", "set()", "frozenset()", "set(['c'])"], [("a", "b"), ("b", "a"), (), (), ("c",)]),
    # A set has no order, so 0 and 1 are no places.
    (["{0, 1}", "{1, 0}"], [("0", "1"), ("1", "0")]),
    (["f(x)", "Sports (indoor), News (all)", "(a)", "IL(b),(c)"], [("f(x)",), ("Sports (indoor)", "News (all)"), ("(a)",), ("IL(b)", "(c)")]),
])  # fmt: skip
def test_other_lists_have_names(values, labels):
    assert named(values) == (labels, ())


@pytest.mark.parametrize("name", [
    "O(1)", "printf(3)", "Grade(1)", "SDG(13)", "Rev(2.0)", "(18)", "(1)", "(2.0)", "O((n+1)^2)",
    "Na(Al(OH)4)", "P(X=1)", "Art.5(3)", "DNA(5'-3')", "f(None)", "(true)", "f()", "Array (1)",
])  # fmt: skip
def test_a_name_with_a_number_in_brackets_is_a_name(name):
    for separator in (",", ";", "|"):
        assert named([name, f"{name}{separator}b"], separator)[0] == [(name,), (name, "b")]


@pytest.mark.parametrize("values", [
    [[-1, -1]] * 2, [[None, None]] * 2, [[-1, -1], [None, None], "", None], ["[-1, -1]", ""],
    [[float("nan")] * 3], [[-1]] * 2, [[None]], ["-1", "-1"], [[-1.0, -1.0]],
])  # fmt: skip
def test_where_no_list_is_known_no_example_has_a_label(values):
    assert named(values) == ([None] * len(values), ())


def test_a_test_set_of_unknown_lists_is_kept_where_no_labels_are_needed(tmp_path):
    lines = [json.dumps({"text": text, "label": [-1, -1]}) for text in ("one", "two")]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    source = DataLocation(str(tmp_path))
    examples = read_examples(source, "test", label_type="classes", unlabelled=True)
    assert [(example.text, example.label) for example in examples] == [("one", None), ("two", None)]
    with pytest.raises(UserError, match="split test: found no example with a label"):
        read_examples(source, "test", label_type="classes")


def test_any_separator_parts_the_names():
    for separator in ("|", ";", "##", " ", "\t", " / ", ", "):
        assert named([separator.join(["a", "b", "c"])], separator)[0] == [("a", "b", "c")]


@pytest.mark.parametrize("values,message", [
    (["a", "b,a,b"], 'f, line 2: found a class twice in the list ["b", "a", "b"], expected each class once'),
    ([[0, 1, 0], [1, 0]], "f, line 2: found the list [1, 0], expected 3 values, each 0 or 1, as in [0, 1, 0] of line 1"),
    ([[1, 0], [0, 1, 0], [1, 1, 0]], "f, line 1: found the list [1, 0], expected 3 values, each 0 or 1, as in [0, 1, 0] of line 2"),
    ([[0.0, 1.0], [1.0]], "f, line 2: found the list [1.0], expected 2 values, each 0 or 1, as in [0.0, 1.0] of line 1"),
    ([[0, 1, 0], [0, 2, 0]], "f, line 2: found the list [0, 2, 0], expected 3 values, each 0 or 1"),
    ([[0, 1, 0], []], "f, line 2: found the list [], expected 3 values, each 0 or 1"),
    (["[0, 1, 0]", "a"], 'f, line 2: found the list ["a"], expected 3 values, each 0 or 1'),
    ([[0, 1, 0], [-1, -1]], "f, line 2: found the list [-1, -1], expected 3 values, as many as in the other examples"),
    ([["a", "a"], [0, 1]], 'f, line 1: found a class twice in the list ["a", "a"], expected each class once'),
    ([[0.2, 0.8]], "f, line 1: found the list [0.2, 0.8], expected names of classes"),
    ([["a"], ["b", None]], 'f, line 2: found the list ["b", null], expected names of classes'),
    ([[1.0, float("nan")]], "f, line 1: found the list [1.0, NaN], expected names of classes"),
    (["a,nan"], 'f, line 1: found the list ["a", "nan"], expected names of classes'),
    ([[True], ["a"]], "f, line 1: found the list [true], expected names of classes"),
    (["[0 1 0]"], "f, line 1: found the label '[0 1 0]', expected a list with commas and quotes, or names with ','"),
    (["['a' 'b']"], "f, line 1: found the label \"['a' 'b']\", expected a list with commas"),
    (["[a, b]"], "f, line 1: found the label '[a, b]', expected a list with commas and quotes"),
    ([{"a": 1}], "f, line 1: found a label of type dict, expected text or a number"),
    ([[["a"]]], 'f, line 1: found the list [["a"]], expected names of classes, or 0 and 1'),
])  # fmt: skip
def test_what_is_neither_names_nor_places_is_refused(values, message):
    with pytest.raises(UserError) as caught:
        named(values)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("text", [
    "tensor([0., 1.])",
    "tensor([0, 1], device='cuda:0')",
    "tensor(1.)",
    "torch.tensor([1])",
    "array([0, 1])",
    "array(['a', 'b'], dtype=object)",
    "np.array([['a']])",
    "Index(['a', 'b'], dtype='object')",
    "<tf.Tensor: shape=(2,), dtype=int32, numpy=array([0, 1], dtype=int32)>",
    "torch.Size([1, 2])",
    "np.str_('a')",
    "{'a': 1, 'b': 0}",
    '{"a"}, {"b"}',
    "{a,b}",
    "{a}",
    "dict(a=1, b=0)",
    "dict_keys(['a', 'b'])",
    "Counter({'a': 1})",
    "['a', array([1, 2])]",
    "[np.int64(0)]",
    "[np.str_('a'), np.str_('b')]",
    "[('a', 'b')]",
    "[['a', 'b'], ['c']]",
    "['a', nan]",
    "['a', 'b",
    "('a', 'b'",
    "[ True False]",
    "[nan  1.]",
    "[-1  1]",
    "[.5 .5]",
    "[1e-05 1.]",
    "(0, 10]",
    "(a, b)",
    "np.int64(0)",
    "np.float32(1.)",
    "Tensor(1)",
    "array(5)",
    "frozenset(a)",
    "f(a,b; c d)",
    "DataFrame([1])",
    "['a' 'b']",
    "b('a', 'b')",
    "frozenset({a, b})",
    "{0: 'a'}",
    "range(0, 3)",
])  # fmt: skip
def test_what_other_programs_write_is_never_parted_at_its_commas(text):
    for separator in (",", ";", " "):
        with pytest.raises(UserError) as caught:
            named([text], separator)
        message = str(caught.value)
        assert message.startswith("f, line 1: found "), message
        assert "\n" not in message


def test_a_list_in_a_column_of_one_class_is_refused(tmp_path):
    lists = (
        "['a']",
        "[0, 1]",
        "[0 1 0]",
        "('a', 'b')",
        "(0, 1, 0)",
        "{'a'}",
        "tensor([0, 1])",
        "array(['a'])",
    )
    for text in lists:
        (tmp_path / "train.tsv").write_text(f"text\tlabel\none\t{text}\n")
        with pytest.raises(UserError, match="line 2: found the list .*finetune.label_type classes"):
            read_examples(DataLocation(str(tmp_path)), "train")
    names = ("[A]", "(18, 24)", "f(x)", "Ca(2+)", "[1]", "{}")
    for text in names:
        (tmp_path / "train.tsv").write_text(f"text\tlabel\none\t{text}\n")
        assert read_examples(DataLocation(str(tmp_path)), "train")[0].label == text


def test_empty_cells_among_lists_of_places_are_left_out_and_counted(tmp_path, caplog):
    (tmp_path / "train.csv").write_text('text,label\na,"[0, 1]"\nb,\nc,"[1, 1]"\nd,nan\n')
    source = DataLocation(str(tmp_path))
    with caplog.at_level(logging.INFO, "bertjax"):
        examples = read_examples(source, "train", label_type="classes")
    assert [(example.text, example.label) for example in examples] == [
        ("a", ("1",)),
        ("c", ("0", "1")),
    ]
    assert caplog.messages[0].endswith("examples without a label, which were left out: 2 of 4")
    kept = read_examples(source, "train", label_type="classes", unlabelled=True)
    assert [example.label for example in kept] == [("1",), None, ("0", "1"), None]


def test_random_zero_one_lists_of_a_file_have_six_classes(shared_data):
    folder = shared_data.parent / "cases" / "tasks" / "zero_one_lists"
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    examples = read_examples(DataLocation(str(folder)), "train", label_type="classes")
    assert {example.classes for example in examples} == {("0", "1", "2", "3", "4", "5")}
    first = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
    assert examples[0].label == tuple(str(i) for i, bit in enumerate(first["label"]) if bit)
