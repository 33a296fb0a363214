import pytest

from bertjax.errors import UserError
from bertjax.tasks.classification.glue import glue_label, glue_task
from bertjax.tasks.classification.label_lists import parse_list
from bertjax.tasks.classification.labels import labels_of
from bertjax.tasks.examples import TextExample


def examples_of(*labels):
    return [TextExample(str(i), f"text {i}", label=label) for i, label in enumerate(labels)]


def test_labels_are_sorted_as_numbers_where_they_are():
    assert labels_of(examples_of("10", "9", "10", "-1")) == ("-1", "9", "10")
    assert labels_of(examples_of("10", "9", "b")) == ("10", "9", "b")
    assert labels_of(examples_of(("b", "a"), (), ("c",))) == ("a", "b", "c")


LONG = "9" * 5000


def test_codes_longer_than_python_reads_numbers_are_classes():
    examples = [TextExample("1", "a", None, label) for label in (LONG, "1", "-2")]
    assert labels_of(examples) == tuple(sorted([LONG, "1", "-2"]))
    assert labels_of(examples[1:]) == ("-2", "1")
    with pytest.raises(UserError, match="expected one of entailment, not_entailment, or 0 to 1"):
        glue_label(glue_task("rte"), LONG, "f")
    with pytest.raises(UserError, match=r"found the list \[9999"):
        parse_list(",", f"[{LONG}, 1]", "f")
