"""Command lines that are drawn, each with a mistake or an odd value, in one process.

They are those of the fuzz test (`tests/cli/fuzz/`), of this seed.
"""

import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from attacks.result import ENDED_WELL, ONE_LINE, SKIPPED, TRACEBACK, WAITED, Attack, Result

KIND = "command line"
SEED = 19


def attacks(count: int) -> Iterator[Attack]:
    """Yield the numbers of the draws."""
    for number in range(count):
        yield Attack(KIND, "any", number)


def attempt(place: Path, attack: Attack) -> Result:
    """Run one command line in a copy of the fuzz test's workplace."""
    if importlib.util.find_spec("tests.cli") is None or not _has_fuzz():
        return Result(SKIPPED, "tests/cli/fuzz is not in this checkout")
    from tests.cli.fuzz import damage, outcome

    original, live = _workplace(place.parent)
    words = _drawn(1 + attack.number // 1000 * 1000 + 999)[attack.number]
    ended = outcome.run(words, live)
    damage.restore(original, live)
    details = {"words": words, "fault": ended.fault}
    if ended.fault:
        verdict = WAITED if ended.fault.startswith("hangs") else TRACEBACK
        return Result(verdict, ended.fault, details)
    verdict = ONE_LINE if ended.status == 2 else ENDED_WELL
    return Result(verdict, (ended.err.strip().splitlines() or [""])[-1][:200], details)


def _has_fuzz() -> bool:
    return importlib.util.find_spec("tests.cli.fuzz") is not None


@lru_cache
def _drawn(count: int) -> list[Any]:
    from tests.cli.fuzz.draws import command_lines

    return list(command_lines(SEED, count))


@lru_cache
def _workplace(folder: Path) -> tuple[Path, Path]:
    """Return the fuzz test's workplace, and a copy of it that its command lines may change."""
    import shutil

    from tests.cli.fuzz import workplace

    original, live = folder / "fuzz", folder / "fuzz-live"
    for old in (original, live):
        shutil.rmtree(old, ignore_errors=True)
    workplace.make(original)
    shutil.copytree(original, live)
    return original, live
