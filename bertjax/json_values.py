"""Values read from JSON files, checked against the types of the dataclasses that they become."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, TypeVar

from bertjax.errors import check, mismatch, nearest, one_line

T = TypeVar("T")


def record(kind: type[T], values: object, where: str) -> T:
    """Return the dataclass `kind` made of an object from a JSON file.

    Lists become tuples, and integers floats, where the field has that type. Raises `UserError`,
    whose message begins with `where` (the file), for a field that is missing or unknown, and for a
    value of another type, a number that is not finite and an integer beyond 64 bits.
    """
    _check(isinstance(values, Mapping), values, where, "an object")
    given = typing.cast(Mapping[str, object], values)
    kinds = _field_types(typing.cast(type, kind))
    for name in given:
        if name not in kinds:
            raise mismatch(
                where=where,
                found=f"the field {shown(name)}",
                expected=f"one of {', '.join(kinds)}{nearest(name, kinds)}",
            )
    arguments = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in given:
            place = f"{where}: {field.name}"
            arguments[field.name] = value_of(kinds[field.name], given[field.name], place)
        else:
            optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
            check(optional, where=where, found=f"no field {field.name}", expected="one")
    return kind(**arguments)


def value_of(kind: Any, value: Any, where: str) -> Any:
    """Return a JSON value as a value of the type `kind`; raise `UserError` as `record` does."""
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return record(typing.cast(type, kind), value, where)
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        # A type or None; there is no other union.
        if value is None and NoneType in members:
            return None
        (kind,) = (member for member in members if member is not NoneType)
        return value_of(kind, value, where)
    if origin is Literal:
        choices = f"one of {', '.join(map(str, members))}"
        _check(isinstance(value, str) and value in members, value, where, choices)
        return value
    if origin is None:
        return _plain(kind, value, where)
    return _collection(origin, members, value, where)


def shown(value: object) -> str:
    """Return a value for a message, in one line of at most 80 characters."""
    # Python refuses to write an integer of more than 4,300 digits.
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, dict | list):
        return f"a {type(value).__name__} of {len(value)}"
    return one_line(repr(value), limit=80)


@functools.cache
def _field_types(kind: type) -> dict[str, Any]:
    """Return the type of each field of a dataclass; other attributes are no fields."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _collection(origin: Any, members: tuple[Any, ...], value: Any, where: str) -> Any:
    """Return a list as a list or a tuple, and an object as a dict, each item checked."""
    if issubclass(origin, Mapping):
        _check(isinstance(value, dict), value, where, "an object")
        kind = members[1]
        return {name: value_of(kind, item, f"{where}: {name}") for name, item in value.items()}
    _check(isinstance(value, list | tuple), value, where, "a list")
    if members[0] is str and all(type(item) is str for item in value):
        # At once: a sample of a corpus has a million sentences.
        items = value
    else:
        items = [value_of(members[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    return tuple(items) if origin is tuple else list(items)


def _plain(kind: type, value: Any, where: str) -> Any:
    """Return a value of a type without members."""
    # In Python a bool is an int, too; null, true and numbers are apart in JSON.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (int, float) and is_number:
        # Those of NumPy, signed and unsigned: keys of documents are unsigned.
        is_right = -(2**63) <= value < 2**64 if isinstance(value, int) else math.isfinite(value)
        _check(is_right, value, where, "a finite number of 64 bits")
        if kind is float:
            return float(value)
    is_kind = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    _check(is_kind, value, where, f"a value of type {kind.__name__}")
    return value


def _check(condition: bool, value: object, where: str, expected: str) -> None:
    """Raise `UserError` that shows the value, unless `condition` is true."""
    # Shown only then: a file may have many thousands of numbers.
    if not condition:
        raise mismatch(where=where, found=shown(value), expected=expected)
