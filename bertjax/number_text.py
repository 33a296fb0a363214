"""Numbers as text for a reader: the one place that decides how a figure is written."""

MAX_DIGITS = 4300
"""Maximum number of digits that `int` reads: https://docs.python.org/3/library/stdtypes.html#int-max-str-digits"""


def whole_number(text: str) -> int | None:
    """Return the number that decimal digits, perhaps behind a sign, are; None for too many.

    Of more than `MAX_DIGITS` digits `int` raises `ValueError`, since they take it very long.
    """
    return int(text) if len(text) <= MAX_DIGITS else None


def number_text(value: float, spec: str) -> str:
    """Return `value` in a format of Python, such as `.3f`; what rounds to zero has no sign.

    Without this, a correlation of -0.0000001 is written as `-0.000`, as if it were below 0.
    """
    if spec.endswith("d"):
        return format(value, spec)
    # Python's option `z` (PEP 682) removes the sign after rounding; integers do not know it. It
    # stands after the option `+`.
    sign = "+" if spec.startswith("+") else ""
    return format(value, f"{sign}z{spec.removeprefix('+')}")


def unsigned_zero(value: float) -> float:
    """Return 0.0 for -0.0, which JSON would keep, and any other number as it is."""
    # IEEE 754: the sum of a negative and a positive zero is the positive one.
    return value + 0.0
