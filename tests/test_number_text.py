"""Figures as text: nothing that rounds to zero has a sign."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.number_text import number_text, unsigned_zero

SPECS = (".3f", ".4f", ".1f", ".4g", ".6g", ".5g", ",.0f", ".1%", ".0%")


@given(st.floats(-1e300, 1e300), st.sampled_from(SPECS))
def test_only_a_sign_before_zeros_is_removed(value, spec):
    usual = format(value, spec)
    is_zero = re.search(r"[1-9]", usual.partition("e")[0]) is None
    assert number_text(value, spec) == (usual.removeprefix("-") if is_zero else usual)


@pytest.mark.parametrize("zero", [-0.0, -1e-9, np.float32(-1e-9), np.float64(-0.0)])
def test_numbers_just_below_zero_are_written_as_zero(zero):
    assert number_text(zero, ".3f") == "0.000"
    assert number_text(zero, ".1%") == "0.0%"
    assert number_text(zero, "+.0%") == "+0%"


def test_integers_and_numbers_that_are_not_finite_are_written_as_usual():
    assert number_text(1234567, ",d") == "1,234,567"
    assert [number_text(x, "+.1%") for x in (0.25, -0.25)] == ["+25.0%", "-25.0%"]
    assert [number_text(x, ".3f") for x in (math.nan, -math.inf)] == ["nan", "-inf"]


def test_a_negative_zero_loses_its_sign_and_no_other_number_changes():
    assert math.copysign(1, unsigned_zero(-0.0)) == 1
    assert [unsigned_zero(x) for x in (-1e-300, 2.5)] == [-1e-300, 2.5]
