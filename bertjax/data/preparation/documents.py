"""Tokenised documents as flat arrays, in memory and on the disk."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bertjax.data.ragged import ranges

DIGEST_BYTES = 16
CONTINUES = 1 << 30


class Documents(NamedTuple):
    """Documents one after another; sentence `s` is `tokens[sentences[s]:sentences[s + 1]]`, and so
    on.
    """

    tokens: np.ndarray
    """int32 `[T]`; `CONTINUES` is added where a token continues a word though its piece could begin
    one.
    """
    sentences: np.ndarray
    """Where each sentence begins in `tokens`, int64 `[S + 1]`; none is empty."""
    documents: np.ndarray
    """Where each document begins in `sentences`, int64 `[D + 1]`; none is empty."""
    digests: np.ndarray
    """`digest` of each document's text, uint8 `[D, 16]`."""

    def __len__(self) -> int:
        return len(self.documents) - 1


def digest(sentences: Sequence[str]) -> bytes:
    """Identifies a document by its content: what its split, its shard and its place there come
    from.
    """
    return hashlib.blake2b(
        "\n".join(sentences).encode(errors="surrogatepass"), digest_size=DIGEST_BYTES
    ).digest()


def join(parts: Sequence[Documents]) -> Documents:
    """The documents of all parts, in order."""
    if not parts:
        none = np.zeros(1, np.int64)
        return Documents(np.zeros(0, np.int32), none, none, np.zeros((0, DIGEST_BYTES), np.uint8))
    token_shifts = np.cumsum([0, *(len(part.tokens) for part in parts)])
    sentence_shifts = np.cumsum([0, *(len(part.sentences) - 1 for part in parts)])
    sentences = [
        part.sentences[:-1] + shift for part, shift in zip(parts, token_shifts, strict=False)
    ]
    documents = [
        part.documents[:-1] + shift for part, shift in zip(parts, sentence_shifts, strict=False)
    ]
    return Documents(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([*sentences, token_shifts[-1:]]),
        np.concatenate([*documents, sentence_shifts[-1:]]),
        np.concatenate([part.digests for part in parts]),
    )


def take(source: Documents, order: np.ndarray) -> Documents:
    """The documents of these numbers, in this order."""
    sentence_index = ranges(source.documents[order], source.documents[order + 1])
    begins, ends = source.sentences[sentence_index], source.sentences[sentence_index + 1]
    lengths = source.documents[order + 1] - source.documents[order]
    return Documents(
        source.tokens[ranges(begins, ends)],
        np.concatenate([[0], np.cumsum(ends - begins)]).astype(np.int64),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        source.digests[order],
    )


def pack(documents: Documents) -> bytes:
    """The documents as bytes: three counts, then lengths, digests and ids."""
    counts = np.array(
        [len(documents), len(documents.sentences) - 1, len(documents.tokens)], np.int64
    )
    lengths = [
        np.diff(offsets).astype(np.int32) for offsets in (documents.documents, documents.sentences)
    ]
    arrays: list[np.ndarray] = [
        counts,
        *lengths,
        documents.digests,
        documents.tokens.astype(np.int32),
    ]
    return b"".join(array.tobytes() for array in arrays)


def unpack(content: bytes) -> Documents:
    """The inverse of `pack`."""
    count, sentences, tokens = np.frombuffer(content, np.int64, 3).tolist()
    at = 24
    arrays = []
    for kind, size in (
        (np.int32, count),
        (np.int32, sentences),
        (np.uint8, count * DIGEST_BYTES),
        (np.int32, tokens),
    ):
        arrays.append(np.frombuffer(content, kind, size, at))
        at += arrays[-1].nbytes
    begins = [np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]) for lengths in arrays[:2]]
    return Documents(arrays[3], begins[1], begins[0], arrays[2].reshape(-1, DIGEST_BYTES))
