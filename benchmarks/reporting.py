"""Output that the benchmarks have in common: Markdown tables, JSON, and results line by line."""

import argparse
import fcntl
import json
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows the script's docstring as it is."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def print_header(columns: Sequence[str]) -> None:
    """Print the first two lines of a Markdown table."""
    print_line(columns)
    print_line("---" for _ in columns)


def print_line(cells: Iterable[object]) -> None:
    """Print one line of a Markdown table at once, since the next one may take minutes."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, and the folder that it is in if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


class Results:
    """Lines of JSON in a file, appended as they are measured; a later start finds them there.

    The file is locked as long as the object lives: a second program would measure the same again,
    while it takes seconds from the first.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{path}: in use by another process, expected one at a time") from None
        self.path = path
        self._lock = threading.Lock()
        self._file.seek(0)
        # A start that was killed may have left a part of a line.
        whole, end, _ = self._file.read().rpartition("\n")
        self._file.truncate(len((whole + end).encode()))
        self.entries: list[dict[str, Any]] = [json.loads(line) for line in whole.split("\n") if end]

    def newest(self, **wanted: Any) -> dict[str, Any] | None:
        """Return the newest entry that has these values, None if there is none."""
        for entry in reversed(self.entries):
            if wanted.items() <= entry.items():
                return entry
        return None

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry to the file, and print its beginning."""
        line = json.dumps(entry)
        with self._lock:
            self.entries.append(entry)
            self._file.write(line + "\n")
            self._file.flush()
        print(line[:300], flush=True)
