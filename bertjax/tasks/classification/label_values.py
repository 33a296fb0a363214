"""The text that names a class, from a value of a table."""

import re
from collections.abc import Iterable
from typing import Any

from bertjax.errors import check, mismatch
from bertjax.number_text import whole_number

WHOLE_NUMBER = re.compile(r"([+-]?\d+)(\.0*)?")


def class_name(value: Any, where: str) -> str:
    """Return the name of the class that `value` stands for, without spaces around it.

    A number that is whole has the same name in each form: JSON does not tell 1 from 1.0, and a
    column of integers becomes one of floats if a value is missing.
    """
    if isinstance(value, bool):
        return "true" if value else "false"  # as JSON spells them
    check(
        isinstance(value, str | int | float),
        where=where,
        found=f"a label of type {type(value).__name__}",
        expected="text or a number",
    )
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def check_spelling(new: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise `UserError` if two labels are one number, such as 1 and 1.0: they would be two classes.

    1 and 01 may be two classes, as in codes.
    """
    by_number: dict[int, str] = {}
    # The known ones first, so that a message names the one that is expected first.
    for label in (*known, *sorted(new)):
        match = WHOLE_NUMBER.fullmatch(label)
        if not match:
            continue
        number = whole_number(match[1])
        if number is None:
            continue
        other = by_number.setdefault(number, label)
        if other != label and "." in other + label:
            raise mismatch(
                where=where,
                found=f"the labels {other!r} and {label!r}",
                expected="one spelling of a number",
            )
