import pytest

from bertjax.errors import UserError
from bertjax.tasks.classification.label_values import check_spelling, class_name

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("value,name", [
    (1, "1"), (1.0, "1"), (-2.0, "-2"), (0.5, "0.5"), (" 1 ", "1"), ("1.0", "1.0"), (True, "true"), (1e30, str(10**30 + 19884624838656)),
])  # fmt: skip
def test_a_whole_number_has_one_name_in_every_type(value, name):
    assert class_name(value, "f") == name


@pytest.mark.parametrize("new,known", [
    ({"1", "1.0"}, ()), ({"2."}, ("1", "2")), ({"-1.00"}, ("-1",)), ({"1"}, ("0.0", "1.0")), ({"01.0"}, ("1",)),
])  # fmt: skip
def test_two_spellings_of_a_number_are_refused(new, known):
    with pytest.raises(UserError) as caught:
        check_spelling(new, known, "task t")
    assert str(caught.value).startswith("task t: found the labels '")


@pytest.mark.parametrize("new,known", [
    ({"1", "01", "2"}, ()), ({"1.5", "1"}, ()), ({"b"}, ("a", "1")), ({"1.0", "2.0"}, ()), ({"1.0"}, ("1.0",)),
])  # fmt: skip
def test_labels_that_are_different_numbers_or_names_are_kept(new, known):
    check_spelling(new, known, "task t")
