"""Damage: files cut off, emptied, with JSON of other types, missing, or a folder in their place."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attacks import targets, workplace
from attacks.in_process import answer_of
from attacks.result import Attack, Result, in_turn
from attacks.targets import TARGETS

KIND = "damaged file"
OTHERS: list[Any] = [
    None,
    True,
    -1,
    1.5,
    2**70,
    float("nan"),
    "",
    "x",
    "\ud800",
    "../x",
    [],
    [1],
    [[]],
    {},
    {"x": None},
]
"""Values of other types for a field, or for a whole file."""


def attacks(count: int) -> Iterator[Attack]:
    """Return the attacks: every kind of file in turn."""
    return in_turn(KIND, TARGETS, count)


def attempt(place: Path, attack: Attack) -> Result:
    """Damage a file in a drawn way; read; compare; repair it."""
    rng = random.Random(attack.key)
    target = TARGETS[attack.verb]
    expected = targets.undisturbed(attack.verb, place)
    path = rng.choice(target.files(place))
    ways = [cut, empty, missing, folder, other_bytes]
    if target.is_json:
        # Most of the mistakes are in fields.
        ways += [field, field, field, whole]
    told = rng.choice(ways)(rng, place / path)
    answer = answer_of(target.read, place)
    workplace.restore(place)
    return targets.judge(attack.verb, answer, expected, f"{path}: {told}")


def cut(rng: random.Random, path: Path) -> str:
    content = path.read_bytes()
    size = rng.randrange(max(1, len(content)))
    path.write_bytes(content[:size])
    return f"cut to {size} bytes"


def empty(rng: random.Random, path: Path) -> str:
    path.write_bytes(b"")
    return "emptied"


def missing(rng: random.Random, path: Path) -> str:
    path.unlink()
    return "missing"


def folder(rng: random.Random, path: Path) -> str:
    path.unlink()
    path.mkdir()
    return "a folder"


def other_bytes(rng: random.Random, path: Path) -> str:
    content = path.read_bytes()
    place = rng.randrange(len(content) + 1)
    path.write_bytes(content[:place] + b"\xff\x00\x80" + content[place:])
    return f"three more bytes at {place}"


def whole(rng: random.Random, path: Path) -> str:
    value = json.dumps(rng.choice(OTHERS))
    path.write_text(f"{value}\n")
    return f"is {value}"


def field(rng: random.Random, path: Path) -> str:
    """Give a drawn field of a JSON file, or of a line of it, a value of another type."""
    lines = [path.read_text()]
    if path.suffix == ".jsonl":
        lines = lines[0].splitlines()
    number = rng.randrange(len(lines))
    try:
        values = json.loads(lines[number])
    # vocab.txt
    except ValueError:
        return other_bytes(rng, path)
    places = list(_places(values))
    if not places:
        return whole(rng, path)
    names, change = rng.choice(places)
    value = rng.choice(OTHERS)
    change(value)
    lines[number] = json.dumps(values)
    path.write_text("\n".join(lines) + "\n")
    return f"line {number}, {names} = {json.dumps(value)}"


def _places(values: Any, above: str = "") -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield the name of each field, and a function that changes it."""
    items: list[Any] = []
    if isinstance(values, dict):
        items = list(values.items())
    elif isinstance(values, list):
        # Entries of a vocabulary are alike.
        items = list(enumerate(values[:10]))
    for key, value in items:
        name = f"{above}{key}"

        def change(new: Any, key: Any = key) -> None:
            values[key] = new

        yield name, change
        yield from _places(value, f"{name}.")
