"""The wall-clock budget of a run: its text, and what does not go with it."""

import re
from typing import Any

from bertjax.config.field_types import shown
from bertjax.errors import check

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
"""Units of a budget, and their seconds."""
_FORM = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,9}})?)([{''.join(UNITS)}])")


def budget_seconds(text: str) -> float:
    """Return the seconds of a budget such as 24h; `UserError` for a text that is none.

    >>> budget_seconds("1.5h")
    5400.0
    """
    match = _FORM.fullmatch(text)
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    check(
        seconds > 0,
        where="train.budget",
        found=shown(text),
        expected=f"a time above 0, such as 24h, 90m or 3600s ({', '.join(UNITS)})",
    )
    return seconds


def check_budget(config: Any) -> None:
    """Raise `UserError` for what a `Config` says that does not fit a budget of time."""
    if not config.train.budget:
        return
    others = {
        "phases": (config.phases, "none: phases are spans of steps"),
        "finetune.tasks": (config.finetune.tasks, "none: it is for pretraining"),
    }
    for name, (value, expected) in others.items():
        check(
            not value,
            where=name,
            found=f"{len(value)} beside train.budget",
            expected=expected,
        )
    growth = config.train.batch_size_schedule
    check(
        growth == "constant",
        where="train.batch_size_schedule",
        found=growth,
        expected="constant, beside train.budget: a batch grows by steps",
    )
