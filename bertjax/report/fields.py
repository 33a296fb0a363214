"""Fields of `evaluation.json`, an untrusted file, each checked for its type."""

import math
from typing import Any

from bertjax.errors import check
from bertjax.finetuning.error_analysis import FILE


def field_of(values: Any, name: str, kind: type, where: str) -> Any:
    """Return a field of the untrusted file; `UserError` if it is missing or of another type.

    In place of a float the file may have an integer, or null for a number that is not finite: JSON
    cannot express such a number.
    """
    check(
        isinstance(values, dict),
        where=where,
        found=f"a {type(values).__name__}",
        expected="an object",
    )
    check(
        name in values,
        where=where,
        found=f"no field {name}",
        expected=f"fields as `bertjax evaluate` of this version writes in {FILE}",
    )
    value = values[name]
    if kind is float:
        if value is None:
            return math.nan
        check(
            isinstance(value, int | float) and not isinstance(value, bool),
            where=f"{where}: {name}",
            found=repr(value)[:80],
            expected="a number",
        )
        return float(value)
    check(
        # JSON's true becomes True, which is an instance of int.
        isinstance(value, kind) and not (kind is int and isinstance(value, bool)),
        where=f"{where}: {name}",
        found=repr(value)[:80],
        expected=f"of type {kind.__name__}",
    )
    return value
