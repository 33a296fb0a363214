"""Types of the fields of a configuration: each value is checked against them wherever it is set."""

import functools
import math
import types
import typing
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal

from bertjax.config.sql_source import without_password
from bertjax.errors import check, nearest, one_line


@functools.cache
def field_types(kind: type) -> dict[str, Any]:
    """Return the type of each field of a configuration class, by the field's name."""
    return typing.get_type_hints(kind)


def check_fields(section: str, config: object) -> None:
    """Check the type of each field of a configuration or section, before its ranges are checked.

    Called first by `__post_init__`, so that it holds for configuration files too. Lists become
    tuples, and integers become floats, where the field has that type. `section` is the name of the
    section; empty: the whole configuration. Raises `UserError` for a value of another type, one
    that is not among the choices, and a number that is not finite or beyond 64 bits.
    """
    kind: type = type(config)
    for name, field_type in field_types(kind).items():
        value = getattr(config, name)
        where = f"{section}.{name}" if section else name
        converted = field_value(field_type, value, where)
        if converted is not value:
            # As dataclasses do it themselves: the instance is frozen for all others.
            object.__setattr__(config, name, converted)


def field_value(field_type: Any, value: Any, where: str) -> Any:
    """Return `value` converted for a field of this type; raise `UserError` as `check_fields`."""
    origin = typing.get_origin(field_type)
    if origin is types.UnionType:
        # A type or None; there is no other union.
        if value is None:
            return None
        (field_type,) = (member for member in typing.get_args(field_type) if member is not NoneType)
        origin = typing.get_origin(field_type)
    if origin is Literal:
        choices = typing.get_args(field_type)
        check(
            # The choices are strings. Values of other types may have an `==` of their own.
            isinstance(value, str) and value in choices,
            where=where,
            found=shown(value),
            expected=f"one of {', '.join(choices)}{nearest(str(value), choices)}",
        )
        return value
    if origin is tuple:
        check(isinstance(value, list | tuple), where=where, found=shown(value), expected="a list")
        item_type = typing.get_args(field_type)[0]
        return tuple(field_value(item_type, item, where) for item in value)
    # In Python a bool is also an int, but True is never meant as a number in a configuration.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number:
        _check_size(value, where)
    if field_type is float and is_number:
        return float(value)
    check(
        isinstance(value, field_type) and isinstance(value, bool) == (field_type is bool),
        where=where,
        found=shown(value),
        expected=f"a value of type {field_type.__name__}",
    )
    if isinstance(value, str):
        # No path or name has one, and the system refuses it in its own words, much later.
        check("\0" not in value, where=where, found=shown(value), expected="no null character")
    return value


def _check_size(number: float, where: str) -> None:
    """Raise `UserError` for a number that is not finite, or an integer of more than 64 bits."""
    if isinstance(number, int):
        # JSON and Python allow integers of any length; float() fails above 2**1024.
        check(
            abs(number) < 2**63,
            where=where,
            found=f"an integer of {number.bit_length()} bits",
            expected="a smaller one",
        )
    else:
        check(math.isfinite(number), where=where, found=number, expected="a finite number")


def shown(value: object) -> str:
    """Return the value for a message, in one line of at most 200 characters.

    It is without passwords, because a corpus may stand at a wrong place.
    """
    return one_line(repr(_without_passwords(value)), limit=200)


def _without_passwords(value: object) -> object:
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, Mapping):
        return {_without_passwords(key): _without_passwords(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_without_passwords(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value
