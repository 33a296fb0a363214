"""Full disks: a verb writes to a small tmpfs, and the same command goes on when that is larger."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from attacks.outputs import judge_output
from attacks.processes import run
from attacks.result import DELETE_BY_HAND, ONE_LINE, SKIPPED, Attack, Result
from attacks.verbs import OUT, VERBS, output_path
from attacks.workplace import new_output

KIND = "full disk"
PAGE = 4096
ENOUGH = "size=256m"
MOST = ("train", "prepare", "export")


def attacks(levels: int) -> Iterator[Attack]:
    """Yield the levels, 1 to `levels`: the disk has so many parts of what the output needs."""
    for number in range(1, levels + 1):
        for verb in MOST:
            yield Attack(KIND, verb, number)


def attempt(place: Path, attack: Attack) -> Result:
    """Write to a disk that is too small; give it space; start the same command again."""
    folder = new_output(place, attack.key).parent
    reference = output_path(attack.verb, place / VERBS[attack.verb].reference)
    pages = sum(1 + path.lstat().st_size // PAGE for path in reference.rglob("*"))
    size = max(1, pages * attack.number // 10) * PAGE
    if os.geteuid() != 0 or not _mounted(folder, f"size={size}"):
        return Result(SKIPPED, "only root can mount a small disk")
    try:
        return _attempt(place, attack, folder / OUT, size)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _attempt(place: Path, attack: Attack, out: Path, size: int) -> Result:
    words = VERBS[attack.verb].command(out)
    first = run(words, place)
    details = {"bytes": size, "seconds": first.wall_s, "status": first.status}
    details["said"] = first.last_line()
    details["command"] = " ".join(["bertjax", *words])
    happened = f"disk of {size:,} bytes: status {first.status}"
    if first.verdict() not in ("", ONE_LINE):
        return Result(first.verdict(), f"{happened}: {first.last_line()}", details)
    subprocess.run(["mount", "-o", f"remount,{ENOUGH}", out.parent], check=True)
    again = run(words, place)
    done = first.status == 0 and again.verdict() == ONE_LINE
    if again.verdict() and not done:
        verdict = DELETE_BY_HAND if again.verdict() == ONE_LINE else again.verdict()
        return Result(verdict, f"{happened}; with space: {again.last_line()}", details)
    judged = judge_output(place, attack.verb, out, f"{happened}; then whole", details)
    # Training goes on without its metrics, and says at the next start which steps are missing.
    only_metrics = judged.happened.endswith("differs: metrics.jsonl")
    if only_metrics and "missing" in f"{first.err}{again.err}":
        return Result(ONE_LINE, f"{happened}; it is said that steps are missing", details)
    return judged


def _mounted(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
