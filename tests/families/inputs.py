"""Inputs of drawn lengths: packed and padded in our rows, each in a row of its own for references."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """Where an input stands in our rows."""

    row: int
    start: int
    end: int


class Alone(NamedTuple):
    """Inputs in a padded row each, [S, L]."""

    ids: np.ndarray
    mask: np.ndarray
    types: np.ndarray
    labels: np.ndarray
    """The id that was masked; -100 where none was."""


class Inputs(NamedTuple):
    """The same inputs for both programs."""

    batch: dict[str, np.ndarray]
    """Ours: as `bertjax.pretraining_loss` takes it, without sentence pairs."""
    places: list[Place]
    alone: Alone


# Ids below stand for special tokens; of these the references treat padding in a way of its own.
FIRST_ID = 5


def drawn_places(rng: np.random.Generator, length: int) -> list[Place]:
    """Draw a full row, a padded one, a packed one, and one that is both."""
    places = [Place(0, 0, length), Place(1, 0, length - int(rng.integers(2, length // 2)))]
    for row, end in ((2, length), (3, length - int(rng.integers(1, length // 4)))):
        count = int(rng.integers(2, 5))
        cuts = np.sort(rng.choice(np.arange(3, end - 2), count - 1, replace=False))
        bounds = [0, *(int(cut) for cut in cuts), end]
        for start, stop in pairwise(bounds):
            places.append(Place(row, start, stop))
    return places


def drawn_inputs(
    rng: np.random.Generator, places: list[Place], length: int, vocab: int, pad: int, types: int
) -> Inputs:
    """Draw the ids, token types and masked words of inputs at these places."""
    rows = 1 + max(place.row for place in places)
    shape = (rows, length)
    batch = {name: np.zeros(shape, np.int32) for name in _PER_TOKEN}
    batch["input_ids"] += pad
    alone_shape = (len(places), max(place.end - place.start for place in places))
    zeros = np.zeros(alone_shape, np.int32)
    alone = Alone(zeros + pad, zeros.copy(), zeros.copy(), zeros - 100)
    masked: list[list[tuple[int, int]]] = [[] for _ in range(rows)]
    for number, place in enumerate(places):
        count = place.end - place.start
        ids = rng.integers(FIRST_ID, vocab, count)
        token_types = rng.integers(0, max(types, 1), count)
        inside = place.row, slice(place.start, place.end)
        batch["input_ids"][inside] = ids
        batch["segment_ids"][inside] = token_types
        batch["input_mask"][inside] = 1
        batch["position_ids"][inside] = np.arange(count)
        batch["pack_ids"][inside] = 1 + number
        alone.ids[number, :count] = ids
        alone.types[number, :count] = token_types
        alone.mask[number, :count] = 1
        for offset in rng.choice(count, max(1, count // 5), replace=False):
            label = int(rng.integers(FIRST_ID, vocab))
            alone.labels[number, offset] = label
            masked[place.row].append((place.start + int(offset), label))
    return Inputs(batch | _predictions(masked, length), places, alone)


_PER_TOKEN = ("input_ids", "input_mask", "segment_ids", "position_ids", "pack_ids")


def _predictions(masked: list[list[tuple[int, int]]], length: int) -> dict[str, np.ndarray]:
    """Return the positions and ids of the masked words, as many in each row for one program."""
    shape = (len(masked), length // 2)
    positions, ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    weights = np.zeros(shape, np.float32)
    for row, words in enumerate(masked):
        for number, (position, label) in enumerate(words):
            positions[row, number], ids[row, number] = position, label
            weights[row, number] = 1
    return {
        "masked_lm_positions": positions,
        "masked_lm_ids": ids,
        "masked_lm_weights": weights,
    }
