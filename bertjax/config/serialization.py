"""Conversion of a configuration to plain values and back, with types and names checked."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, TypeVar

from bertjax.config.model import Remat
from bertjax.config.sql_source import without_password
from bertjax.errors import check, mismatch, nearest

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Return the configuration, a dataclass, as nested dicts, lists, strings and numbers.

    Passwords of databases are left out, because this is what files and reports get.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        # A list, as JSON has it: so the values equal those that are read from a file.
        elif isinstance(value, tuple):
            value = [without_password(item) if isinstance(item, str) else item for item in value]
        values[field.name] = value
    return values


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Return the configuration of type `kind` from `values`, the result of `to_dict`.

    Missing fields get their defaults. Raises `UserError`, whose message begins with `where`, for an
    unknown field, a value of a wrong type, or a value that is out of range.
    """
    return kind(**_fields(kind, values, where))


def replaced(config: T, changes: Mapping[str, object], where: str = "config") -> T:
    """Return a copy of a configuration or section with other values.

    For a nested section, `changes` has a mapping of changes or a whole section. Raises `UserError`
    as `from_dict` does.
    """
    check(
        isinstance(changes, Mapping),
        where=where,
        found=_shown(changes),
        expected="a dict of fields",
    )
    values: dict[str, object] = {}
    for name, change in changes.items():
        current = getattr(config, name, None)
        if not dataclasses.is_dataclass(current):
            values |= _fields(type(config), {name: change}, where)
        elif isinstance(change, type(current)):
            values[name] = change
        else:
            section_changes = typing.cast(Mapping[str, object], change)
            values[name] = replaced(current, section_changes, f"{where}.{name}")
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def _fields(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Keyword arguments for `kind`, a configuration class, from plain `values`."""
    check(isinstance(values, Mapping), where=where, found=_shown(values), expected="an object")
    field_types = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in field_types:
            raise mismatch(
                where=where,
                found=f"the field {_shown(name)}",
                expected=f"one of {', '.join(field_types)}{nearest(str(name), field_types)}",
            )
        field_type = field_types[name]
        if field_type == Remat and isinstance(value, bool):
            # Older runs, saved when there was only one policy, have `remat` as a bool.
            value = "full" if value else "none"
        if dataclasses.is_dataclass(field_type):
            section = typing.cast(type, field_type)
            arguments[name] = from_dict(section, value, f"{where}.{name}")
        else:
            arguments[name] = _value(field_type, value, f"{where}.{name}")
    return arguments


def _value(field_type: Any, value: Any, where: str) -> Any:
    """`value` converted for a field of type `field_type`; `UserError` if its type is wrong."""
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
            value in choices,
            where=where,
            found=_shown(value),
            expected=f"one of {', '.join(choices)}",
        )
        return value
    if origin is tuple:
        check(isinstance(value, list | tuple), where=where, found=_shown(value), expected="a list")
        item_type = typing.get_args(field_type)[0]
        return tuple(_value(item_type, item, where) for item in value)
    # In Python a bool is also an int, but True is never meant as a number in a configuration.
    is_bool = isinstance(value, bool)
    if field_type is float and isinstance(value, int) and not is_bool:
        # JSON allows integers of any length; float() fails above 2**1024.
        check(
            abs(value) < 2**63,
            where=where,
            found=f"an integer of {value.bit_length()} bits",
            expected="a smaller one",
        )
        return float(value)
    check(
        isinstance(value, field_type) and is_bool == (field_type is bool),
        where=where,
        found=_shown(value),
        expected=f"a value of type {field_type.__name__}",
    )
    return value


def _shown(value: object) -> str:
    """The value for a message, without passwords: a corpus may stand at a wrong place."""
    return repr(_without_passwords(value))


def _without_passwords(value: object) -> object:
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, Mapping):
        return {_without_passwords(key): _without_passwords(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_without_passwords(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value
