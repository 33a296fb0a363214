"""Kills: SIGKILL at a drawn moment, then the same command again."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from attacks.outputs import judge_output
from attacks.processes import Process, run
from attacks.result import DELETE_BY_HAND, ONE_LINE, Attack, Result, in_turn
from attacks.verbs import VERBS, output_path
from attacks.workplace import new_output, seconds_of

KIND = "kill"


def attacks(count: int) -> Iterator[Attack]:
    """Return the attacks: every verb in turn."""
    return in_turn(KIND, VERBS, count)


def attempt(place: Path, attack: Attack) -> Result:
    """Start, kill, start again; compare the output with that of an undisturbed command."""
    rng = random.Random(attack.key)
    verb = VERBS[attack.verb]
    out = new_output(place, attack.key)
    verb.begin(place, out)
    words = verb.command(out)
    process = Process(words, place)
    told, moment = _moment(rng, place, attack, process, out)
    group = rng.random() < 0.5
    killed = process.wait_for(moment)
    found = _files(out.parent)
    if killed:
        process.kill(group=group)
    first = process.end()
    details = {"moment": told, "killed": killed, "group": group, "files then": found}
    if not killed and (first.status != 0 or first.verdict()):
        return Result(first.verdict(), f"before the kill: {first.last_line()}", details)
    again = run(words, place)
    details |= {"seconds": again.wall_s, "command": " ".join(["bertjax", *words])}
    happened = "killed" if killed else "ended before the kill"
    # What a whole output lets the second command say: there is nothing to do.
    if not killed and again.verdict() == ONE_LINE:
        return judge_output(place, attack.verb, out, f"{happened}; then refused", details)
    if again.verdict():
        verdict = DELETE_BY_HAND if again.verdict() == ONE_LINE else again.verdict()
        return Result(verdict, f"{happened}; then: {again.last_line()}", details)
    return judge_output(place, attack.verb, out, f"{happened}; then status 0", details)


def _moment(
    rng: random.Random, place: Path, attack: Attack, process: Process, out: Path
) -> tuple[str, Callable[[], bool]]:
    """Return in words, and as a function, when to kill."""
    verb = VERBS[attack.verb]
    cpu_s = seconds_of(place, attack.verb)["cpu"]
    # Each in turn for each verb: the number counts all verbs.
    way = attack.number // len(VERBS) % 3
    if way == 0 and verb.checkpoints:
        more_s = rng.uniform(0, 0.25) * cpu_s

        def after_checkpoint() -> bool:
            return any(out.rglob("checkpoints/[0-9]*/commit_success.txt"))

        return _later(after_checkpoint, process, more_s)
    if way == 1:
        share = rng.uniform(0.3, 0.98)
        return f"after {share:.0%} of its work", lambda: process.cpu_seconds() > share * cpu_s
    reference = output_path(attack.verb, place / verb.reference)
    before = _files(out.parent)
    number = rng.randint(1, max(1, 1 + len(list(reference.rglob("*"))) - before))
    return f"at its file {number}", lambda: _files(out.parent) >= before + number


def _later(
    event: Callable[[], bool], process: Process, more_s: float
) -> tuple[str, Callable[[], bool]]:
    """Return the moment at which `more_s` more have been computed since an event."""
    since: list[float] = []

    def moment() -> bool:
        if not since and event():
            since.append(process.cpu_seconds())
        return bool(since) and process.cpu_seconds() >= since[0] + more_s

    return f"{more_s:.1f} s of work after the first checkpoint", moment


def _files(folder: Path) -> int:
    """Return the number of files and folders in `folder` at this moment."""
    count = 0
    pending = [folder]
    while pending:
        # A folder may be renamed while it is read.
        try:
            entries = list(pending.pop().iterdir())
        except OSError:
            continue
        count += len(entries)
        pending += [entry for entry in entries if entry.is_dir()]
    return count
