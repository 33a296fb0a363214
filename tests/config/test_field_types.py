import dataclasses
import math
import typing

import numpy as np
import pytest

from bertjax.config import Config, DataConfig, ModelConfig
from bertjax.config.field_types import field_types
from bertjax.errors import UserError

SECTIONS = {"": Config} | {
    name: kind for name, kind in field_types(Config).items() if dataclasses.is_dataclass(kind)
}
FIELDS = [
    (section, name)
    for section, kind in SECTIONS.items()
    for name in (field.name for field in dataclasses.fields(kind))
]
# No field has any of these values.
WRONG = (
    object(),
    "\0",
    {"a": 1},
    b"bytes",
    np.array([1, 2]),
    math.nan,
    -math.inf,
    10**400,
    1j,
    [[None]],
)


@pytest.mark.parametrize("section,name", FIELDS)
def test_every_field_refuses_every_value_of_another_type_in_one_line_that_names_it(section, name):
    """A configuration file sets fields as Python does, without the checks of the command line."""
    kind = SECTIONS[section]
    path = f"{section}.{name}" if section else name
    accepted = {type(getattr(kind(), name))}
    field_type = field_types(kind)[name]
    if float in accepted:
        accepted.add(int)
    if type(None) in typing.get_args(field_type):
        accepted |= {*typing.get_args(field_type), int}
    others = [value for value in (True, 3, 0.5, "word", None) if type(value) not in accepted]
    for value in (*WRONG, *others):
        with pytest.raises(UserError) as caught:
            kind(**{name: value})
        message = str(caught.value)
        assert message.startswith(f"{path}: found "), message
        assert "\n" not in message
        assert len(message) < 600


@pytest.mark.parametrize("section,name", [
    (section, name)
    for section, name in FIELDS
    if typing.get_origin(field_types(SECTIONS[section])[name]) is typing.Literal
])  # fmt: skip
def test_a_choice_that_does_not_exist_is_answered_with_the_choices_and_the_nearest(section, name):
    kind = SECTIONS[section]
    choices = typing.get_args(field_types(kind)[name])
    for choice in choices:
        with pytest.raises(UserError) as caught:
            kind(**{name: f"{choice}x"})
        assert f"expected one of {', '.join(choices)}; the nearest is " in str(caught.value)


def test_a_wrong_dtype_is_refused_where_it_is_set():
    with pytest.raises(UserError, match=r"model\.dtype: found 'float16', expected one of "):
        ModelConfig(dtype="float16")
    with pytest.raises(UserError, match=r"model\.dtype: found 'float16'"):
        dataclasses.replace(Config().model, dtype="float16")


def test_lists_and_integers_become_what_the_field_has():
    config = DataConfig(corpus=["a.txt", "b.txt"], mixture_exponent=1)
    assert config == DataConfig(corpus=("a.txt", "b.txt"), mixture_exponent=1.0)
    assert isinstance(config.mixture_exponent, float)
    assert hash(config) == hash(DataConfig(corpus=("a.txt", "b.txt"), mixture_exponent=1.0))


def test_a_word_in_place_of_a_list_of_words_is_not_taken_letter_by_letter():
    with pytest.raises(UserError, match=r"data\.corpus: found 'a\.txt', expected a list"):
        DataConfig(corpus="a.txt")
