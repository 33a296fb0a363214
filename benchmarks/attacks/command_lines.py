"""Command lines that are drawn, each with a mistake or an odd value, in one process.

They are those of the fuzz test of the command line (`tests/cli/fuzz/`), from a seed of our own.
"""

import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from attacks.fuzz_test import fuzz_part
from attacks.result import ENDED_WELL, ONE_LINE, TRACEBACK, WAITED, Attack, Result

KIND = "command line"
SEED = 19
BLOCK = 1000


def attacks(count: int) -> Iterator[Attack]:
    """Yield the numbers of the draws."""
    for number in range(count):
        yield Attack(KIND, "any", number)


def attempt(place: Path, attack: Attack) -> Result:
    """Run one command line in a copy of the fuzz test's workplace."""
    original, live = _workplace(place.parent)
    words = _drawn(BLOCK * (1 + attack.number // BLOCK))[attack.number]
    ended = fuzz_part("outcome").run(words, live)
    fuzz_part("damage").restore(original, live)
    details = {"words": words}
    if ended.fault:
        verdict = WAITED if ended.fault.startswith("hangs") else TRACEBACK
        return Result(verdict, ended.fault, details)
    verdict = ONE_LINE if ended.status == 2 else ENDED_WELL
    lines = ended.err.strip().splitlines() or [""]
    return Result(verdict, lines[-1][:200], details)


@lru_cache
def _drawn(count: int) -> list[list[str]]:
    return list(fuzz_part("draws").command_lines(SEED, count))


@lru_cache
def _workplace(folder: Path) -> tuple[Path, Path]:
    """Return the fuzz test's workplace, and a copy of it that its command lines may change."""
    original, live = folder / "fuzz", folder / "fuzz-live"
    for old in (original, live):
        shutil.rmtree(old, ignore_errors=True)
    fuzz_part("workplace").make(original)
    shutil.copytree(original, live)
    return original, live
