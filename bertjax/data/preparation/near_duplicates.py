"""Search for near-duplicate documents with MinHash sketches, which the package rensa computes.

A document's sketch is a vector of `PERMUTATIONS` numbers. Each number is the minimum of one hash
function over the document's 5-grams of tokens. The share of equal numbers in two sketches estimates
the Jaccard similarity of the documents, with a standard error of at most 0.044 (Broder, 1997). Only
documents that agree in a band, a group of consecutive numbers, are compared.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from bertjax.data.preparation.documents import DIGEST_BYTES, Documents, offsets_of
from bertjax.data.preparation.unit_files import SIGNATURES
from bertjax.data.ragged import ranges
from bertjax.data.records.manifest import WORK
from bertjax.errors import UserError
from bertjax.storage import is_local, written_whole

# The standard error of the estimated similarity is at most 0.5 / sqrt(128) = 0.044.
PERMUTATIONS = 128
SHINGLE = 5
"""Number of tokens in an n-gram."""
DROPPED = "near_duplicates"
"""File in `.work` with the digests of the documents to drop."""
# Minimum probability that two documents whose similarity equals the threshold share a band.
MIN_RECALL = 0.99
# Divisors of `PERMUTATIONS`, so that the bands fill a sketch.
BAND_SIZES = (32, 16, 8, 4, 2)
# Always the same: only sketches of the same permutations can be compared.
_SEED = 0
_PAIRS_AT_ONCE = 1 << 14  # pairs compared together; each has two sketches of 512 bytes: 16 MB
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth's multiplicative hashing)
# One item a digest: numpy sorts and compares such items by all their bytes.
DIGEST_DTYPE = f"V{DIGEST_BYTES}"


class Signatures(NamedTuple):
    """The digests and sketches of some documents."""

    digests: np.ndarray
    """`V16 [D]`."""
    sketches: np.ndarray
    """uint32 `[PERMUTATIONS, D]`."""


def write_signatures(path: epath.Path, documents: Documents) -> None:
    """Write the digests, `[D, 16]`, and the sketches, uint32 `[PERMUTATIONS, D]`, of documents."""
    minhash = _rensa().RMinHash
    hashes, offsets = _shingles(documents)
    sketches = minhash.digest_matrix_from_flat_token_hashes(hashes, offsets, PERMUTATIONS, _SEED)
    matrix = np.array(sketches.to_rows(), np.uint32).reshape(-1, PERMUTATIONS)
    with written_whole(path) as file:
        file.write(documents.digests.tobytes())
        # Stored permutation by permutation, so that a band is one contiguous part of the file.
        file.write(np.ascontiguousarray(matrix.T).tobytes())


def find_near_duplicates(folder: str, work_units: Sequence[str], threshold: float) -> None:
    """Write the digests of the documents to drop, from the sketches of all work units.

    Two documents are linked if their sketches share a band and their estimated similarity is at
    least `threshold` (0 to 1). In each connected group only the document with the smallest digest
    is kept. This needs about 80 bytes of memory per document. Does nothing if the file exists.
    """
    # Imported late: every worker imports this module, and only one item needs it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    work = epath.Path(folder) / WORK
    target = work / DROPPED
    if target.exists():
        return
    signatures = _open_all(work, work_units)
    digests = np.concatenate([np.zeros(0, DIGEST_DTYPE), *(part.digests for part in signatures)])
    order = np.argsort(digests)  # puts exact duplicates next to each other
    digests = digests[order]
    a, b = _concatenated(_linked([part.sketches for part in signatures], order, threshold))
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), (len(order), len(order)))
    _, component = connected_components(graph, directed=False)
    # The documents are sorted by digest, so the first of a group has the smallest.
    _, first = np.unique(component, return_index=True)
    kept = np.zeros(len(order), bool)
    kept[first] = True
    # Exact copies of a document have the same digest. If one copy is kept, the digest must not be
    # in the list of dropped ones; the other copies are removed later.
    dropped = np.setdiff1d(digests[~kept], digests[kept])
    with written_whole(target) as file:
        file.write(dropped.tobytes())


def read_dropped(work: epath.Path) -> np.ndarray:
    """Read the digests that `find_near_duplicates` wrote, sorted; `V16 [n]`."""
    return np.frombuffer((work / DROPPED).read_bytes(), DIGEST_DTYPE)


def _open_all(work: epath.Path, work_units: Sequence[str]) -> list[Signatures]:
    signatures = []
    for name in work_units:
        for path in sorted((work / name).glob(SIGNATURES), key=os.fspath):
            signatures.append(_open(path))
    return signatures


def _concatenated(
    pairs: Iterator[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Join blocks of pairs into two arrays, int64 `[n]` each."""
    # Empty arrays first, because numpy concatenates no empty list.
    first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for a, b in pairs:
        if len(a):
            first.append(a)
            second.append(b)
    return np.concatenate(first), np.concatenate(second)


def _linked(
    sketches: list[np.ndarray], order: np.ndarray, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of similar documents as positions in `order`, int64 `[n]` each.

    For each band, the documents are sorted by a hash of the band, and neighbors with equal hashes
    are compared. A group of similar documents is therefore linked as a chain.
    """
    starts = np.cumsum([0, *(part.shape[1] for part in sketches)])
    band_size = _band_size(threshold)
    for band in range(0, PERMUTATIONS, band_size):
        key = np.zeros(len(order), np.uint64)
        for permutation in range(band, band + band_size):
            parts = [np.zeros(0, np.uint32), *(part[permutation] for part in sketches)]
            key = (key ^ np.concatenate(parts)[order]) * _MULTIPLIER
        # Stable: documents with equal keys stay in the order of their digests.
        by_key = np.argsort(key, kind="stable")
        # Different bands may have the same key: the sketches themselves are compared below.
        same = key[by_key][1:] == key[by_key][:-1]
        a, b = by_key[:-1][same], by_key[1:][same]
        for begin in range(0, len(a), _PAIRS_AT_ONCE):
            x, y = a[begin : begin + _PAIRS_AT_ONCE], b[begin : begin + _PAIRS_AT_ONCE]
            equal = _columns(sketches, starts, order[x]) == _columns(sketches, starts, order[y])
            similar = equal.mean(axis=0) >= threshold
            yield x[similar], y[similar]


def _columns(sketches: list[np.ndarray], starts: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the sketches of the documents with these numbers; uint32 `[PERMUTATIONS, n]`."""
    columns = np.empty((PERMUTATIONS, len(numbers)), np.uint32)
    parts = np.searchsorted(starts, numbers, side="right") - 1
    for part in np.unique(parts):
        here = parts == part
        columns[:, here] = sketches[part][:, numbers[here] - starts[part]]
    return columns


def _band_size(threshold: float) -> int:
    """Return the largest band size that finds a pair at the threshold with 99 % probability.

    Two documents of similarity s agree in a band of r numbers with probability s^r. They agree in
    at least one of the 128 / r bands with probability 1 - (1 - s^r)^(128 / r) (Leskovec et al.,
    Mining of Massive Datasets, 3.4).
    """
    for size in BAND_SIZES:
        if 1 - (1 - threshold**size) ** (PERMUTATIONS // size) >= MIN_RECALL:
            return size
    return 1


def _open(path: epath.Path) -> Signatures:
    """Open a file that `write_signatures` wrote; a local file is memory-mapped, not read."""
    # The file of a work unit without documents is empty, and an empty file cannot be mapped.
    if is_local(path) and path.stat().length > 0:
        content: np.ndarray = np.memmap(path, np.uint8, "r")
    else:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    count = len(content) // (DIGEST_BYTES + 4 * PERMUTATIONS)
    digests = np.array(content[: count * DIGEST_BYTES]).view(DIGEST_DTYPE)
    sketches = content[count * DIGEST_BYTES :].view(np.uint32).reshape(PERMUTATIONS, count)
    return Signatures(digests, sketches)


def _shingles(documents: Documents) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all documents' 5-grams and each document's offset in them, uint64."""
    bounds = documents.sentences[documents.documents]
    begins, lengths = bounds[:-1], np.diff(bounds)
    # 5-grams beyond a document's end are hashed too, in one pass over all tokens; `counts` leaves
    # them out.
    padded = np.concatenate([documents.tokens, np.zeros(SHINGLE, np.int32)]).astype(np.uint64)
    grams = np.zeros(len(documents.tokens), np.uint64)
    for shift in range(SHINGLE):
        grams = (grams ^ padded[shift : shift + len(grams)]) * _MULTIPLIER
        # A product carries bits upward only; this brings the high ones down again.
        grams ^= grams >> np.uint64(29)
    # A document with fewer than 5 tokens gets its digest as its only hash, so it is similar only to
    # its exact copies.
    short = lengths < SHINGLE
    grams[begins[short]] = np.ascontiguousarray(documents.digests[short]).view(np.uint64)[:, 0]
    counts = np.where(short, 1, lengths - SHINGLE + 1)
    return grams[ranges(begins, begins + counts)], offsets_of(counts).astype(np.uint64)


def _rensa() -> Any:
    try:
        import rensa
    except ImportError as error:
        raise UserError(
            "data.near_duplicate_threshold: found no package rensa, expected it: "
            "pip install rensa (or 0 here)"
        ) from error
    return rensa
