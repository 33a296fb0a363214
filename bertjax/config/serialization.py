"""Conversion of a configuration to plain values and back, with types and names checked."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from bertjax.config.field_types import field_types, field_value, shown
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


def to_flat_dict(config: Any) -> dict[str, Any]:
    """Return the values of `to_dict` by their dotted names, such as `train.steps`."""
    return dict(_flat(to_dict(config), ""))


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


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
        found=shown(changes),
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
    check(isinstance(values, Mapping), where=where, found=shown(values), expected="an object")
    types_by_name = field_types(kind)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in types_by_name:
            raise mismatch(
                where=where,
                found=f"the field {shown(name)}",
                expected=f"one of {', '.join(types_by_name)}{nearest(str(name), types_by_name)}",
            )
        field_type = types_by_name[name]
        if field_type == Remat and isinstance(value, bool):
            # Older runs, saved when there was only one policy, have `remat` as a bool.
            value = "full" if value else "none"
        if dataclasses.is_dataclass(field_type):
            section = typing.cast(type, field_type)
            arguments[name] = from_dict(section, value, f"{where}.{name}")
        else:
            arguments[name] = field_value(field_type, value, f"{where}.{name}")
    return arguments
