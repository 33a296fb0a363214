"""Near-duplicate documents by MinHash: sketches by the package rensa, candidates by sorting their
bands.

A document's sketch is `PERMUTATIONS` minima over the hashes of its 5-grams of tokens; the share of
equal minima of two documents estimates their Jaccard similarity, with a standard error of
0.04 or less (Broder, 1997).
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from bertjax.data.preparation.documents import DIGEST_BYTES, Documents
from bertjax.data.ragged import ranges
from bertjax.data.records.manifest import WORK
from bertjax.errors import UserError
from bertjax.storage import is_local, written_whole

PERMUTATIONS = 128
SHINGLE = 5
DROPPED = "near_duplicates"
_SEED = 0
_PAIRS = 1 << 14


def write_signatures(path: epath.Path, documents: Documents) -> None:
    """Write the digests, `[D, 16]`, and the sketches, uint32 `[PERMUTATIONS, D]`, of documents."""
    minhash = _rensa().RMinHash
    hashes, offsets = _shingles(documents)
    sketches = minhash.digest_matrix_from_flat_token_hashes(hashes, offsets, PERMUTATIONS, _SEED)
    matrix = np.array(sketches.to_rows(), np.uint32).reshape(-1, PERMUTATIONS)
    with written_whole(path) as file:
        file.write(documents.digests.tobytes())
        file.write(np.ascontiguousarray(matrix.T).tobytes())


def find(folder: str, names: list[str], threshold: float) -> None:
    """Write the digests of the documents to drop, from the sketches of all pieces.

    Documents that share a band of their sketches and whose estimated similarity is
    `threshold` or more are joined, and of what is joined the smallest digest stays. Memory is
    about 80 bytes a document.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    work = epath.Path(folder) / WORK
    target = work / DROPPED
    if target.exists():
        return
    parts = [
        part for name in names for part in sorted((work / name).glob("signatures-*"), key=os.fspath)
    ]
    opened = [_open(part) for part in parts]
    digests = np.concatenate([np.zeros(0, f"V{DIGEST_BYTES}"), *(own for own, _ in opened)])
    order = np.argsort(digests)  # exact duplicates stand side by side, the smallest digest first
    linked = [
        pair
        for pair in _linked([sketches for _, sketches in opened], order, threshold)
        if len(pair[0])
    ]
    a = np.concatenate([np.zeros(0, np.int64), *(pair[0] for pair in linked)])
    b = np.concatenate([np.zeros(0, np.int64), *(pair[1] for pair in linked)])
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), (len(order), len(order)))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    kept = np.zeros(len(order), bool)
    kept[first] = True
    found = digests[order]
    dropped = np.setdiff1d(found[~kept], found[kept])  # not the other copies of what is kept
    with written_whole(target) as file:
        file.write(dropped.tobytes())


def read_dropped(work: epath.Path) -> np.ndarray:
    """What `find` wrote, sorted; `V16 [n]`."""
    return np.frombuffer((work / DROPPED).read_bytes(), f"V{DIGEST_BYTES}")


def _linked(
    sketches: list[np.ndarray], order: np.ndarray, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of similar documents, by their places in `order`."""
    starts = np.cumsum([0, *(part.shape[1] for part in sketches)])
    rows = _rows_a_band(threshold)
    for begin in range(0, PERMUTATIONS, rows):
        key = np.zeros(len(order), np.uint64)
        for row in range(begin, begin + rows):
            minima = np.concatenate([np.zeros(0, np.uint32), *(part[row] for part in sketches)])
            key = (key ^ minima[order]) * np.uint64(0x9E3779B97F4A7C15)
        sorted_places = np.argsort(key, kind="stable")
        same = key[sorted_places][1:] == key[sorted_places][:-1]
        a, b = sorted_places[:-1][same], sorted_places[1:][same]
        for at in range(0, len(a), _PAIRS):
            x, y = a[at : at + _PAIRS], b[at : at + _PAIRS]
            equal = _columns(sketches, starts, order[x]) == _columns(sketches, starts, order[y])
            similar = equal.mean(axis=0) >= threshold
            yield x[similar], y[similar]


def _columns(sketches: list[np.ndarray], starts: np.ndarray, which: np.ndarray) -> np.ndarray:
    found = np.empty((PERMUTATIONS, len(which)), np.uint32)
    part = np.searchsorted(starts, which, side="right") - 1
    for number in np.unique(part):
        here = part == number
        found[:, here] = sketches[number][:, which[here] - starts[number]]
    return found


def _rows_a_band(threshold: float) -> int:
    """The most rows with which a pair at the threshold still shares one of the bands in 99 cases of
    100.
    """
    sizes = [
        rows
        for rows in (32, 16, 8, 4, 2)
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= 0.99
    ]
    return sizes[0] if sizes else 1


def _open(path: epath.Path) -> tuple[np.ndarray, np.ndarray]:
    mapped = (
        is_local(path) and path.stat().length > 0
    )  # a piece may hold no document, and nothing cannot be mapped
    content = (
        np.memmap(path, np.uint8, "r") if mapped else np.frombuffer(path.read_bytes(), np.uint8)
    )
    count = len(content) // (DIGEST_BYTES + 4 * PERMUTATIONS)
    digests = np.array(content[: count * DIGEST_BYTES]).view(f"V{DIGEST_BYTES}")
    return digests, content[count * DIGEST_BYTES :].view(np.uint32).reshape(PERMUTATIONS, count)


def _shingles(documents: Documents) -> tuple[np.ndarray, np.ndarray]:
    """The 5-grams' hashes of all documents, uint64, and where each document's begin."""
    bounds = documents.sentences[documents.documents]
    begins, lengths = bounds[:-1], np.diff(bounds)
    padded = np.concatenate([documents.tokens, np.zeros(SHINGLE, np.int32)]).astype(np.uint64)
    grams = np.zeros(len(documents.tokens), np.uint64)
    for shift in range(SHINGLE):
        grams = (grams ^ padded[shift : shift + len(grams)]) * np.uint64(0x9E3779B97F4A7C15)
        grams ^= grams >> np.uint64(29)
    # What is shorter than a 5-gram is like its exact copies only.
    short = lengths < SHINGLE
    grams[begins[short]] = np.ascontiguousarray(documents.digests[short]).view(np.uint64)[:, 0]
    counts = np.where(short, 1, lengths - SHINGLE + 1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    return grams[ranges(begins, begins + counts)], offsets


def _rensa() -> Any:
    try:
        import rensa
    except ImportError as error:
        raise UserError(
            "data.near_duplicate_threshold: found no package rensa, expected it: pip install rensa (or 0 here)"
        ) from error
    return rensa
