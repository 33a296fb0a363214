"""Checks that several sections share."""

import math
from typing import Any

from bertjax.errors import check


def positive(section: str, config: Any, *names: str) -> None:
    """Raise `UserError` where a field is not a finite number above 0."""
    for name in names:
        value = getattr(config, name)
        check(
            0 < value < math.inf,
            where=f"{section}.{name}",
            found=value,
            expected="a number above 0",
        )


def fraction(section: str, config: Any, *names: str) -> None:
    """Raise `UserError` where a field is not a number from 0 to 1."""
    for name in names:
        value = getattr(config, name)
        check(
            0 <= value <= 1, where=f"{section}.{name}", found=value, expected="a number from 0 to 1"
        )
