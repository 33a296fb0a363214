"""Fields of JSON objects, checked as they are read; an error names the place in the file."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bertjax.errors import check
from bertjax.tasks.files.json_rows import SURROGATE


class LocatedObject(NamedTuple):
    """A JSON object and its place in a file."""

    where: str
    values: Mapping[str, Any]


def objects(values: Mapping[str, Any], key: str, where: str) -> Iterator[LocatedObject]:
    """Yield the objects in the list at `key`."""
    for number, value in enumerate(field(values, key, list, where)):
        value_where = f"{field_place(where, key)}[{number}]"
        check(
            isinstance(value, dict),
            where=value_where,
            found=type_name(value),
            expected="an object",
        )
        yield LocatedObject(value_where, value)


def field_place(where: str, key: str) -> str:
    """Return the place of a field of the object at `where`.

    A whole file is at "FILE:", a row of a table at "FILE, line 3:".
    """
    return where + (" " if where.endswith(":") else ".") + key


_TYPE_NAMES = {
    str: "text",
    list: "a list",
    int: "a whole number",
    bool: "true or false",
    dict: "an object",
}


def type_name(value: Any) -> str:
    """Return the type of a value of JSON in words."""
    return "null" if value is None else _TYPE_NAMES.get(type(value), f"a {type(value).__name__}")


def field(values: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """Return the value of a field; `UserError` if it is missing or not of exactly this type.

    A text must not contain half of a surrogate pair.
    """
    check(
        key in values,
        where=where.removesuffix(":"),
        found=f"no {key}",
        expected=f"{key}, {_TYPE_NAMES[kind]}",
    )
    value = values[key]
    value_where = field_place(where, key)
    # isinstance is not used, because it would accept true as a number: bool is a subclass of int.
    check(
        type(value) is kind, where=value_where, found=type_name(value), expected=_TYPE_NAMES[kind]
    )
    if kind is str:
        check(
            not SURROGATE.search(value),
            where=value_where,
            found="half of a surrogate pair",
            expected="Unicode text",
        )
    return value
