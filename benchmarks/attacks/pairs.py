"""Pairs: two processes with the same command, the second started 0 to 3 s after the first."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

from attacks.outputs import judge_output
from attacks.processes import Process
from attacks.result import BOTH_REFUSED, ONE_LINE, TRACEBACK, WAITED, WRONG_NUMBER, Attack, Result
from attacks.verbs import VERBS
from attacks.workplace import new_output

KIND = "pair"
MORE = ("prepare", "train")


def attacks(many: int, few: int) -> Iterator[Attack]:
    """Yield `many` pairs of `prepare` and `train`, `few` of each other verb, in turn."""
    for number in range(max(many, few)):
        for verb in VERBS:
            if number < (many if verb in MORE else few):
                yield Attack(KIND, verb, number)


def attempt(place: Path, attack: Attack) -> Result:
    """Start both; one or both must end with status 0, and the output must be right."""
    rng = random.Random(attack.key)
    verb = VERBS[attack.verb]
    out = new_output(place, attack.key)
    verb.begin(place, out)
    words = verb.command(out)
    offset_s = rng.uniform(0, 3)
    first = Process(words, place)
    due = time.monotonic() + offset_s
    # While it waits, so that a process that does not compute is noticed.
    first.wait_for(lambda: time.monotonic() >= due)
    second = Process(words, place)
    second.wait_for(lambda: not first.running())
    ends = [first.end(), second.end()]
    details = {
        "offset_s": round(offset_s, 2),
        "statuses": [end.status for end in ends],
        "seconds": [end.wall_s for end in ends],
        "said": [end.last_line() for end in ends if end.status],
        "command": " ".join(["bertjax", *words]),
    }
    happened = f"statuses {ends[0].status} and {ends[1].status}"
    bad = {end.verdict() for end in ends} - {"", ONE_LINE}
    zero = [end for end in ends if end.status == 0]
    if not zero and not bad:
        return Result(BOTH_REFUSED, f"{happened}: {ends[0].last_line()}", details)
    judged = judge_output(place, attack.verb, out, happened, details) if zero else None
    # The worst first: wrong numbers with status 0.
    if judged and judged.verdict == WRONG_NUMBER:
        return judged
    for verdict in (TRACEBACK, WAITED):
        if verdict in bad:
            lines = [end.last_line() for end in ends if end.verdict() == verdict]
            return Result(verdict, f"{happened}: {lines[0]}", details)
    assert judged is not None
    return judged
