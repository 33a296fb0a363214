"""What an attack shows: a verdict, and in words what happened."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

ENDED_WELL = "ended well"
ONE_LINE = "one line, status 2"
WRONG_NUMBER = "wrong number"
TRACEBACK = "traceback"
BOTH_REFUSED = "both refused"
DELETE_BY_HAND = "delete by hand"
WAITED = "waited above 10 s"
LEFT_FILES = "left files"
UNNOTICED = "unnoticed, no checksum"
SKIPPED = "skipped"
VERDICTS = (
    ENDED_WELL,
    ONE_LINE,
    UNNOTICED,
    LEFT_FILES,
    BOTH_REFUSED,
    DELETE_BY_HAND,
    WAITED,
    TRACEBACK,
    WRONG_NUMBER,
    SKIPPED,
)
"""All verdicts, the columns of the table.

- ended well: status 0, and what came out equals what an undisturbed command gives.
- one line, status 2: refused as a user's mistake.
- unnoticed, no checksum: other values from a changed file for which nobody keeps a checksum.
- left files: the output is right, but unfinished files lie beside it.
- both refused: of two processes none ended with status 0.
- delete by hand: the same command does not end with status 0 any more.
- waited above 10 s: nothing was computed for ten seconds.
- traceback: an exception that is not the user's, or the end of the process by a signal.
- wrong number: what came out is not what an undisturbed command gives, and nothing said so.
- skipped: not possible on this machine.
"""


@dataclass(frozen=True)
class Result:
    """The end of one attack."""

    verdict: str
    happened: str
    details: dict[str, Any] = field(default_factory=dict)
    """Facts for whoever looks for the cause: moment of a kill, statuses, seconds."""


@dataclass(frozen=True)
class Attack:
    """One attack; its kind, verb and number decide everything that is drawn for it."""

    kind: str
    verb: str
    number: int

    @property
    def key(self) -> str:
        return f"{self.kind} {self.verb} {self.number}"

    def entry(self, result: Result) -> dict[str, Any]:
        """Return the attack and its result as an entry of the ledger."""
        return {**asdict(self), **asdict(result)}


def in_turn(kind: str, names: Iterable[str], count: int) -> Iterator[Attack]:
    """Yield so many attacks of a kind, on each verb or kind of file in turn."""
    for number, name in zip(range(count), itertools.cycle(names), strict=False):
        yield Attack(kind, name, number)
