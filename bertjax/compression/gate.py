"""The bound on what a compressed model may lose, and the error of one that loses more."""

import math
import re

from bertjax.compression.figures import Figure, check_one_scale
from bertjax.errors import UserError, check, mismatch

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,9})?) ?%", re.ASCII)


class BoundError(UserError):
    """A compressed model that loses more than it may: no mistake, so the status is another one."""

    status = 3


def parse_bound(text: str, where: str = "--max-loss") -> float:
    """Return a percentage such as `0.5%` as a share, 0.005.

    The sign is required: 0.5 alone could mean a half. Raises `UserError` for anything else, and
    for 100 % and more, which would allow everything.
    """
    match = _PERCENT.fullmatch(text.strip())
    share = float(match[1]) / 100 if match else math.nan
    check(
        share < 1,
        where=where,
        found=repr(text[:40]),
        expected="a percentage from 0% to below 100%, such as 0.5%",
    )
    return share


def relative_loss(before: Figure, after: Figure) -> float:
    """Return what a figure loses, as a share of its value before; negative where it gains.

    A figure that was 0 and gets worse has lost everything: the share is infinite. So is that of a
    value that is no number.
    """
    check_one_scale(before, after)
    if not math.isfinite(before.value):
        raise mismatch(
            where=f"{before.name} on {before.measured_on}",
            found=f"{before.value} before the compression",
            expected="a finite number",
        )
    if not math.isfinite(after.value):
        return math.inf
    difference = before.value - after.value
    worse = difference if before.higher_is_better else -difference
    if before.value == 0:
        return math.inf if worse > 0 else 0.0
    return worse / abs(before.value)


def check_loss(what: str, before: Figure, after: Figure, max_loss: float) -> None:
    """Raise `BoundError` if `what` loses more than the share `max_loss` of its figure.

    The message is a line such as `int8 per tensor: spearman 0.8002, 1.15 % below 0.8095; allowed
    0.5 %`.
    """
    loss = relative_loss(before, after)
    if loss > max_loss:
        raise BoundError(f"{what}: {loss_text(before, after)}; allowed {percent(max_loss)}")


def loss_text(before: Figure, after: Figure) -> str:
    """Return both values and the distance between them, such as `spearman 0.80, 1 % below 0.81`."""
    values = f"{after.name} {after.value:.4f}"
    if not math.isfinite(after.value) or before.value == 0:
        return f"{values}, before {before.value:.4f}"
    side = "below" if after.value < before.value else "above"
    distance = abs(after.value - before.value) / abs(before.value)
    return f"{values}, {percent(distance)} {side} {before.value:.4f}"


def percent(share: float) -> str:
    """Return a share in percent, with two decimals at most: `0.5 %`."""
    text = f"{100 * share:.2f}".rstrip("0").rstrip(".")
    # What is not zero is not shown as zero.
    return f"{100 * share:.1e} %" if text == "0" and share else f"{text} %"
