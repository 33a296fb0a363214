"""Values of tables that say that there is no label."""

import math
from typing import Any

NOT_A_NUMBER = frozenset({"nan", "NaN", "NAN"})
"""Cells that stand for a missing label, besides the empty one: pandas and NumPy write them.

`None`, `null` and `NA` are not among them, because data sets have classes of these names, such as
the stance `NONE`. Formats with types have a null of their own.
"""


def is_missing(value: Any) -> bool:
    """Return whether a value of a table says that there is no label: null, NaN or an empty cell."""
    if isinstance(value, str):
        text = value.strip()
        return not text or text in NOT_A_NUMBER
    return value is None or (isinstance(value, float) and math.isnan(value))
