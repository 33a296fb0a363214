"""Patterns for names of tensors: what `--drop` matches, and the patterns that errors advise."""

import glob
import re
import shlex
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

WILDCARDS = re.compile(r"[*?\[]")
SEPARATOR = re.compile(r"[./]")  # PyTorch's between the parts of a name, and TensorFlow's
MAX_ADVISED = 8  # patterns in one message: more are no advice that somebody follows


def matches(name: str, pattern: str) -> bool:
    """Return whether `pattern` is the beginning or the ending of `name`, or matches all of it.

    A pattern with `*`, `?` or `[` is one of `fnmatch`, and must match the whole name.
    """
    if WILDCARDS.search(pattern):
        return fnmatchcase(name, pattern)
    return name.startswith(pattern) or name.endswith(pattern)


def advice(unwanted: Collection[str], wanted: Collection[str]) -> str:
    """Return the option `--drop …` that leaves out all of `unwanted` and none of `wanted`.

    It can be pasted into a shell. An empty text is returned where no pattern can do it, or it
    takes more than `MAX_ADVISED` of them.
    """
    patterns: list[str] = []
    rest = list(unwanted)
    if "" in rest:
        return ""  # no pattern matches it alone
    while rest:
        if len(patterns) == MAX_ADVISED:
            return ""
        pattern = _pattern(rest[0], wanted)
        patterns.append(pattern)
        rest = [name for name in rest if not matches(name, pattern)]
    return f"--drop {shlex.join(patterns)}"


def _pattern(name: str, wanted: Collection[str]) -> str:
    """Return the most general pattern for `name` that matches none of `wanted`."""
    for pattern in _candidates(name, wanted):
        is_option = pattern.startswith("-")  # to the command line
        if not is_option and not any(matches(other, pattern) for other in wanted):
            return pattern
    # If wanted names begin or end with `name`, a wildcard makes it a pattern for a whole name.
    return f"[{name[0]}]{glob.escape(name[1:])}"


def _candidates(name: str, wanted: Iterable[str]) -> Iterable[str]:
    """Yield patterns for `name`, the most general ones first."""
    # What an optimizer adds to the name of a parameter, such as `/adam_m`.
    parents = [other for other in wanted if name.startswith(other)]
    if parents:
        yield name.removeprefix(max(parents, key=len))
    beginnings = [name[: match.start()] for match in SEPARATOR.finditer(name)]
    for beginning in [*filter(None, beginnings), name]:
        # A number is that of a layer: what one layer has, the others have too.
        any_layer = re.sub(r"(?<=[./_])\d+(?=[./])", "*", beginning)
        if any_layer != beginning:
            yield f"{any_layer}*"
        yield beginning
