"""Flips: one bit of one file is another, in every kind of file."""

import random
from collections.abc import Iterator
from pathlib import Path

from attacks import targets, workplace
from attacks.in_process import answer_of
from attacks.result import Attack, Result, in_turn
from attacks.targets import TARGETS

KIND = "flip"


def attacks(count: int) -> Iterator[Attack]:
    """Return the attacks: every kind of file in turn."""
    return in_turn(KIND, TARGETS, count)


def attempt(place: Path, attack: Attack) -> Result:
    """Flip a drawn bit; read; compare with what is read without it; flip it back."""
    rng = random.Random(attack.key)
    target = TARGETS[attack.verb]
    expected = targets.undisturbed(attack.verb, place)
    path = rng.choice([path for path in target.files(place) if (place / path).stat().st_size])
    content = bytearray((place / path).read_bytes())
    byte, bit = rng.randrange(len(content)), rng.randrange(8)
    content[byte] ^= 1 << bit
    (place / path).write_bytes(content)
    answer = answer_of(target.read, place)
    workplace.restore(place)
    return targets.judge(attack.verb, answer, expected, f"{path}: byte {byte}, bit {bit}")
