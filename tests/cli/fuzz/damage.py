"""Damage to the files of a workplace, and its repair."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cli.fuzz.draws import Damage

OTHERS: list[Any] = [
    None, True, 0, -1, 1, 1.5, -1e300, 2**31, 2**63, 10**400, "", "x", "\ud800", "../x", "a\0b", [], [1],
    ["x"], [[]], {}, {"x": 1}, {"": None}, [None], float("nan"), float("inf"),
]  # fmt: skip
"""Values of other types for a field."""
BYTES = [b"\xff\xfe\x00", b"\x00" * 64, b"\x80abc\n", b"\x1f\x8b\x08\x00", b"PAR1", b"\xef\xbb\xbf", b"\r\n"]  # fmt: skip


def file_of(folder: Path, damage: Damage) -> Path:
    """Return the file that the damage is for."""
    thing = folder / damage.thing
    files = [thing]
    if thing.is_dir():
        files = [path for path in sorted(thing.rglob("*")) if _is_ours(path)]
    return files[int(damage.file * len(files))]


def _is_ours(path: Path) -> bool:
    """Return whether a file is one of bertjax; the inside of a checkpoint has tests of its own."""
    inside = {"state", "metrics", "tensorboard", "checkpoints"}
    if path.name == "metadata":
        return True
    return path.is_file() and not inside & set(path.parts) and path.name != "report.html"


def apply(folder: Path, damage: Damage) -> Path:
    """Damage a file of the workplace in `folder`; return its path."""
    path = file_of(folder, damage)
    content = path.read_bytes()
    place = int(damage.place * len(content))
    if damage.kind in ("folder", "missing", "dangling", "loop", "pipe"):
        path.unlink()
    match damage.kind:
        case "truncate":
            path.write_bytes(content[:place])
        case "flip":
            bit = 1 << damage.choice % 8
            flipped = bytes([content[place] ^ bit]) if content else b""
            path.write_bytes(content[:place] + flipped + content[place + 1 :])
        case "empty":
            path.write_bytes(b"")
        case "bytes":
            path.write_bytes(BYTES[damage.choice % len(BYTES)])
        case "bytes_inside":
            path.write_bytes(content[:place] + BYTES[damage.choice % len(BYTES)] + content[place:])
        case "json":
            path.write_text(json.dumps(OTHERS[damage.choice % len(OTHERS)]) + "\n")
        case "deep":
            path.write_text("[" * 10_000 + "]" * 10_000 + "\n")
        case "line":
            value = json.dumps(OTHERS[damage.choice % len(OTHERS)])
            path.write_bytes(content + value.encode() + b"\n")
        case "folder":
            path.mkdir()
        case "dangling":
            path.symlink_to("no-such-file")
        case "loop":
            path.symlink_to(path.name)
        case "pipe":
            os.mkfifo(path)
        case "field" | "missing_field":
            _change_field(path, content, damage)
    return path


def _change_field(path: Path, content: bytes, damage: Damage) -> None:
    """Change or remove one value of a JSON file, or of one line of a file of JSON lines.

    Any other file gets a line with the value.
    """
    lines = [content] if path.suffix != ".jsonl" else content.splitlines(keepends=True)
    number = damage.choice % len(lines)
    try:
        values = json.loads(lines[number])
        places = list(_places(values))
        holder, key = places[int(damage.place * len(places))]
    # No JSON, or a list of nothing.
    except (ValueError, IndexError):
        path.write_bytes(content + b"x\n")
        return
    if damage.kind == "missing_field":
        del holder[key]
    else:
        holder[key] = OTHERS[damage.choice % len(OTHERS)]
    lines[number] = json.dumps(values).encode() + b"\n"
    path.write_bytes(b"".join(lines))


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (holder, key) of each value inside a JSON value."""
    items: list[Any] = []
    if isinstance(values, dict):
        items = list(values.items())
    elif isinstance(values, list):
        # The entries of a vocabulary are alike.
        items = list(enumerate(values[:20]))
    for key, value in items:
        yield values, key
        yield from _places(value)


def restore(original: Path, folder: Path) -> None:
    """Make `folder` like `original` again, by copying what differs and deleting what is new."""
    wanted, found = _listing(original), _listing(folder)
    for name in sorted(found, reverse=True):
        if name not in wanted or wanted[name] != found[name]:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                # What is inside is younger than its folder's entry in the listing.
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for name in sorted(wanted):
        path = folder / name
        if (original / name).is_dir():
            path.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(original / name, path)


def _listing(folder: Path) -> dict[str, tuple[int, int] | None]:
    """Return size and time of each file below a folder; None for a folder."""
    listing: dict[str, tuple[int, int] | None] = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        is_folder = path.is_dir() and not path.is_symlink()
        listing[str(path.relative_to(folder))] = (
            None if is_folder else (stat.st_size, stat.st_mtime_ns)
        )
    return listing
