from bertjax.tasks.classification.labels import labels_of
from bertjax.tasks.examples import TextExample


def examples_of(*labels):
    return [TextExample(str(i), f"text {i}", label=label) for i, label in enumerate(labels)]


def test_labels_are_sorted_as_numbers_where_they_are():
    assert labels_of(examples_of("10", "9", "10", "-1")) == ("-1", "9", "10")
    assert labels_of(examples_of("10", "9", "b")) == ("10", "9", "b")
    assert labels_of(examples_of(("b", "a"), (), ("c",))) == ("a", "b", "c")
