"""Range checks that several sections of the configuration share."""

import math

from bertjax.errors import check


def positive(section: str, config: object, *names: str) -> None:
    """Raise `UserError` for the first of these fields that is not a finite number above 0."""
    for name in names:
        value = getattr(config, name)
        # The upper bound rejects infinity. Comparisons with NaN are false, so NaN is rejected too.
        check(
            0 < value < math.inf,
            where=f"{section}.{name}",
            found=value,
            expected="a number above 0",
        )


def not_negative(section: str, config: object, *names: str, expected: str = "0 or more") -> None:
    """Raise `UserError` for the first of these fields that is below 0."""
    for name in names:
        value = getattr(config, name)
        check(value >= 0, where=f"{section}.{name}", found=value, expected=expected)


def fraction(section: str, config: object, *names: str) -> None:
    """Raise `UserError` for the first of these fields that is not a number from 0 to 1."""
    for name in names:
        value = getattr(config, name)
        check(
            0 <= value <= 1, where=f"{section}.{name}", found=value, expected="a number from 0 to 1"
        )


def fraction_below_one(section: str, config: object, *names: str) -> None:
    """Raise `UserError` for the first of these fields that is not a number from 0 to below 1."""
    for name in names:
        value = getattr(config, name)
        check(
            0 <= value < 1,
            where=f"{section}.{name}",
            found=value,
            expected="a number from 0 to below 1",
        )


def must_equal(section: str, config: object, reason: str, **wanted: object) -> None:
    """Raise `UserError` for the first of these fields that has another value than is wanted.

    `reason` follows the wanted value in the message.
    """
    for name, value in wanted.items():
        own = getattr(config, name)
        check(own == value, where=f"{section}.{name}", found=own, expected=f"{value}, {reason}")


def fit_int32(section: str, config: object) -> None:
    """Raise `UserError` for the first integer of a section that is not below 2**31.

    Shapes, positions and steps are int32 in JAX. Numbers of tokens, whose fields end with
    `_tokens`, never get there.
    """
    for name, value in vars(config).items():
        if name.endswith("_tokens"):
            continue
        items = value if isinstance(value, tuple) else (value,)
        for item in items:
            check(
                not isinstance(item, int) or item < 2**31,
                where=f"{section}.{name}",
                found=item,
                expected="less than 2**31",
            )
