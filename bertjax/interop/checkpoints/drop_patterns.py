"""Patterns for names of tensors: what `--drop` selects, and the patterns that errors advise."""

import glob
import re
import shlex
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

WILDCARDS = re.compile(r"[*?\[]")
SEPARATOR = re.compile(r"[./]")  # PyTorch's between the parts of a name, and TensorFlow's
MAX_ADVISED = 8  # patterns in one message: more are no advice that somebody follows


def select(names: Collection[str], pattern: str) -> list[str]:
    """Return the names that begin with `pattern`, or, where none does, those that end with it.

    A beginning goes before an ending: `output_bias` of a fine-tuned BERT is not
    `cls/predictions/output_bias`. A pattern with `*`, `?` or `[` is one of `fnmatch`, and must
    match the whole name. An empty pattern selects nothing.
    """
    if not pattern:
        return []
    if WILDCARDS.search(pattern):
        return [name for name in names if fnmatchcase(name, pattern)]
    beginning = [name for name in names if name.startswith(pattern)]
    return beginning or [name for name in names if name.endswith(pattern)]


def advice(names: Collection[str], unwanted: Collection[str], wanted: Collection[str]) -> str:
    """Return the option `--drop …` that selects all of `unwanted` and none of `wanted`.

    Both are among `names`, all those of the file. The option can be pasted into a shell. An empty
    text is returned where no pattern can do it, or it takes more than `MAX_ADVISED` of them.
    """
    patterns: list[str] = []
    rest = dict.fromkeys(unwanted)
    while rest:
        pattern = _pattern(next(iter(rest)), names, wanted)
        if not pattern or len(patterns) == MAX_ADVISED:
            return ""
        patterns.append(pattern)
        for name in select(names, pattern):
            rest.pop(name, None)
    return f"--drop {shlex.join(patterns)}"


def _pattern(name: str, names: Collection[str], wanted: Collection[str]) -> str:
    """Return the most general pattern that selects `name` and none of `wanted`; empty for none."""
    for pattern in _candidates(name, wanted):
        selected = set(select(names, pattern))
        is_option = pattern.startswith("-")  # to the command line
        if name in selected and selected.isdisjoint(wanted) and not is_option:
            return pattern
    return ""


def _candidates(name: str, wanted: Collection[str]) -> Iterator[str]:
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
    # Wanted names may begin with all of `name`; a wildcard makes it a pattern for a whole name.
    yield f"[{name[:1]}]{glob.escape(name[1:])}"
