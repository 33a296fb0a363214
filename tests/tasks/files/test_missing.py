import math

import pytest

from bertjax.tasks.files.missing import is_missing

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("value", [None, math.nan, "", " ", "nan", "NaN", " NAN "])
def test_null_nan_and_empty_cells_are_missing(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", ["None", "null", "NA", "Nan", "0", 0, 0.0, False, [], math.inf])
def test_names_of_classes_and_zeros_are_not(value):
    assert not is_missing(value)
