"""Tokenised documents as flat arrays, in memory and on the disk."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

DIGEST_BYTES = 16


class Documents(NamedTuple):
    """Documents one after another; sentence `s` is `tokens[sentences[s]:sentences[s + 1]]`, and so on."""

    tokens: np.ndarray
    """int32 `[T]`"""
    sentences: np.ndarray
    """Where each sentence begins in `tokens`, int64 `[S + 1]`; none is empty."""
    documents: np.ndarray
    """Where each document begins in `sentences`, int64 `[D + 1]`; none is empty."""
    digests: np.ndarray
    """`digest` of each document's text, uint8 `[D, 16]`."""

    def __len__(self) -> int:
        return len(self.documents) - 1


def digest(sentences: Sequence[str]) -> bytes:
    """Identifies a document by its content: what its split, its shard and its place there come from."""
    return hashlib.blake2b("\n".join(sentences).encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


def join(parts: Sequence[Documents]) -> Documents:
    """The documents of all parts, in order."""
    if not parts:
        none = np.zeros(1, np.int64)
        return Documents(np.zeros(0, np.int32), none, none, np.zeros((0, DIGEST_BYTES), np.uint8))
    token_shifts = np.cumsum([0, *(len(part.tokens) for part in parts)])
    sentence_shifts = np.cumsum([0, *(len(part.sentences) - 1 for part in parts)])
    sentences = [part.sentences[:-1] + shift for part, shift in zip(parts, token_shifts, strict=False)]
    documents = [part.documents[:-1] + shift for part, shift in zip(parts, sentence_shifts, strict=False)]
    return Documents(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([*sentences, token_shifts[-1:]]),
        np.concatenate([*documents, sentence_shifts[-1:]]),
        np.concatenate([part.digests for part in parts]),
    )


def take(source: Documents, order: np.ndarray) -> Documents:
    """The documents of these numbers, in this order."""
    sentence_index = _ranges(source.documents[order], source.documents[order + 1])
    begins, ends = source.sentences[sentence_index], source.sentences[sentence_index + 1]
    lengths = source.documents[order + 1] - source.documents[order]
    return Documents(
        source.tokens[_ranges(begins, ends)],
        np.concatenate([[0], np.cumsum(ends - begins)]).astype(np.int64),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        source.digests[order],
    )


def slice_of(source: Documents, begin: int, end: int) -> Documents:
    """Documents `begin` to `end`, without copying their tokens."""
    first, last = source.documents[begin], source.documents[end]
    start, stop = source.sentences[first], source.sentences[last]
    return Documents(
        source.tokens[start:stop],
        source.sentences[first : last + 1] - start,
        source.documents[begin : end + 1] - first,
        source.digests[begin:end],
    )


def save(folder: Path, documents: Documents) -> None:
    """Write a folder of arrays, which has its name only when it is whole."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, array in documents._asdict().items():
        _save_array(unfinished / f"{name}.npy", array)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _save_array(path: Path, array: np.ndarray) -> None:
    """As `np.save`, which would not tell that the reason is a full disk."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)


def load(folder: Path) -> Documents:
    """What `save` wrote, mapped and not read."""
    return Documents(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in Documents._fields})


def _ranges(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """`begins[0]..ends[0]-1, begins[1]..ends[1]-1, …` as one index."""
    lengths = ends - begins
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(begins - starts, lengths)
