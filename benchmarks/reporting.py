"""Output that the benchmarks have in common: a Markdown table while they run, JSON at the end."""

import argparse
import json
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
