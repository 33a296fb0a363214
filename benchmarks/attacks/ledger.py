"""The ledger of all attacks, one JSON object a line, and the table made of it."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reporting import print_header, print_line

from attacks.result import VERDICTS, Attack, Result


class Ledger:
    """The file of attacks that were tried. A killed script goes on after its last line."""

    def __init__(self, path: Path):
        self.path = path
        self.entries = read(path) if path.exists() else []
        self._tried = {(e["kind"], e["verb"], e["number"]) for e in self.entries}

    def left(self, attacks: Iterable[Attack]) -> list[Attack]:
        """Return the attacks that have no entry yet."""
        return [a for a in attacks if (a.kind, a.verb, a.number) not in self._tried]

    def add(self, attack: Attack, result: Result) -> None:
        """Append an entry; it is on the disk when this returns."""
        entry = attack.entry(result)
        self.entries.append(entry)
        self._tried.add((attack.kind, attack.verb, attack.number))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """Return the entries; a last line that a kill cut short is left out, and cut off."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        # Else the next entry would be appended to this line.
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def print_table(ledgers: Sequence[list[dict[str, Any]]], *, by_verb: bool = False) -> None:
    """Print kinds x verdicts; of two ledgers each cell has `before > after`."""
    counts = [_counted(entries, by_verb) for entries in ledgers]
    rows = list(dict.fromkeys(row for counted in counts for row in counted))
    used = [
        verdict
        for verdict in VERDICTS
        if any(counted.get(row, {}).get(verdict) for counted in counts for row in rows)
    ]
    print_header(["attack", "tried", *used])
    for row in rows:
        tried = [sum(counted.get(row, {}).values()) for counted in counts]
        cells = [[counted.get(row, {}).get(verdict, 0) for counted in counts] for verdict in used]
        print_line([row, *(" > ".join(map(str, cell)) for cell in [tried, *cells])])


def _counted(entries: list[dict[str, Any]], by_verb: bool) -> dict[str, Counter[str]]:
    """Return the number of each verdict for each row of the table."""
    counted: dict[str, Counter[str]] = {}
    for entry in entries:
        row = f"{entry['kind']}: {entry['verb']}" if by_verb else entry["kind"]
        counted.setdefault(row, Counter())[entry["verdict"]] += 1
    return counted
