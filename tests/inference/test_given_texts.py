"""Texts that a program passes in: a list of strings, or refused in one line."""

import re

import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.inference.given_texts import check_text, each_text


class Word(str):
    """A string of another class, such as NumPy's."""


def test_texts_of_any_iterable_come_as_they_are():
    texts = ["a", "", Word("b"), np.str_("猫")]
    assert list(each_text(iter(texts), "texts")) == texts


@pytest.mark.parametrize("texts", ["abc", "", b"abc", Word("abc")])
def test_one_string_is_refused_before_its_letters_are_taken_for_texts(texts):
    message = f"labels: found one text, {texts!r}, expected a list of texts"
    with pytest.raises(UserError, match=re.escape(message)):
        each_text(texts, "labels")


@pytest.mark.parametrize("other", [None, 3, b"a", ["a"], float("nan")])
def test_anything_else_is_named_by_its_place(other):
    with pytest.raises(UserError, match=r"texts\[1\]: found .*, a \w+, expected a text"):
        list(each_text(["a", other], "texts"))
    with pytest.raises(UserError, match="text: found"):
        check_text(other, "text")


def test_half_a_surrogate_pair_is_named_by_its_place():
    """Python has a byte of an argument as one if it is no UTF-8."""
    with pytest.raises(UserError, match=r"labels\[1\]: found half a surrogate pair, U\+DCFF, exp"):
        list(each_text(["天 é", "\udcff/x"], "labels"))
