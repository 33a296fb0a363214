"""Tokenized documents as flat arrays, in memory and on the disk."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bertjax.data.ragged import ranges

# Among a billion documents, two have the same 128 bits with a probability of about 1e-21.
DIGEST_BYTES = 16
CONTINUES = 1 << 30
"""Bit that marks a token inside a word: below the sign bit of int32, and far above any token id."""


class Documents(NamedTuple):
    """Several documents, stored one after another.

    Sentence `s` is `tokens[sentences[s]:sentences[s + 1]]`. Document `d` has the sentences
    `documents[d]` to `documents[d + 1] - 1`.
    """

    tokens: np.ndarray
    """int32 `[T]`; the bit `CONTINUES` is set in a token that continues a word, although its piece
    could also begin one.
    """
    sentences: np.ndarray
    """Offset of each sentence in `tokens`, then the end; int64 `[S + 1]`. No sentence is empty."""
    documents: np.ndarray
    """Offset of each document in `sentences`, then the end; int64 `[D + 1]`. None is empty."""
    digests: np.ndarray
    """`digest` of each document's text, uint8 `[D, 16]`."""

    def __len__(self) -> int:
        return len(self.documents) - 1


def digest(sentences: Sequence[str]) -> bytes:
    """Return 16 bytes that identify a document by its content.

    They determine its split, its shard and its position in the shard.
    """
    # Text may contain unpaired surrogates, which cannot be encoded as plain UTF-8.
    # Joined by what no sentence holds, so that other sentences are another text.
    text = "\n".join(sentences).encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return the start of each of `n` consecutive spans, then the end; int64 `[n + 1]`."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def join(parts: Sequence[Documents]) -> Documents:
    """Return the documents of all parts, in order."""
    if not parts:
        none = np.zeros(1, np.int64)
        return Documents(np.zeros(0, np.int32), none, none, np.zeros((0, DIGEST_BYTES), np.uint8))
    sentences, documents = [], []
    token_count = sentence_count = 0
    for part in parts:
        sentences.append(part.sentences[:-1] + token_count)
        documents.append(part.documents[:-1] + sentence_count)
        token_count += len(part.tokens)
        sentence_count += len(part.sentences) - 1
    return Documents(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([*sentences, [token_count]]),
        np.concatenate([*documents, [sentence_count]]),
        np.concatenate([part.digests for part in parts]),
    )


def take(source: Documents, order: np.ndarray) -> Documents:
    """Return the documents with the numbers `order`, in that order."""
    first, last = source.documents[order], source.documents[order + 1]
    sentence_index = ranges(first, last)
    begins, ends = source.sentences[sentence_index], source.sentences[sentence_index + 1]
    return Documents(
        source.tokens[ranges(begins, ends)],
        offsets_of(ends - begins),
        offsets_of(last - first),
        source.digests[order],
    )


def joined(documents: Documents, separator: tuple[int, ...]) -> Documents:
    """Return the documents as one, each but the last with the ids of `separator` after it."""
    # Where each document but the last ends, as an index into `documents.sentences`.
    ends = documents.documents[1:-1]
    places = np.repeat(documents.sentences[ends], len(separator))
    tokens = np.insert(documents.tokens, places, np.tile(np.array(separator, np.int32), len(ends)))
    # A separator belongs to the sentence before it, so each bound moves by the separators up to it.
    added = np.zeros(len(documents.sentences), np.int64)
    added[ends] = len(separator)
    sentences = documents.sentences + np.cumsum(added)
    # Nothing asks for the digest of the joined text; one stands there for the one document.
    bounds = np.array([0, len(documents.sentences) - 1])
    digest = documents.digests[:1]  # one for the one document; nothing reads it from here on
    return Documents(tokens, sentences, bounds, digest)


def split_long_sentences(documents: Documents, max_length: int) -> Documents:
    """Divide each sentence of more than `max_length` tokens into as few equal parts as may be."""
    lengths = np.diff(documents.sentences)
    if not len(lengths) or lengths.max() <= max_length:
        return documents
    part_counts = (lengths + max_length - 1) // max_length  # rounded up
    first_part = offsets_of(part_counts)
    # One element for each part: its index within its sentence; then, repeated for all parts of a
    # sentence, the begin and the length of the sentence, and the number of its parts.
    index = np.arange(part_counts.sum()) - np.repeat(first_part[:-1], part_counts)
    begin = np.repeat(documents.sentences[:-1], part_counts)
    length = np.repeat(lengths, part_counts)
    count = np.repeat(part_counts, part_counts)
    part_begins = begin + length * index // count
    # In integers: the parts differ by one token at most, and none is a short rest.
    sentences = np.concatenate([part_begins, documents.sentences[-1:]])
    # The parts are the new sentences: a document begins at the first part of its first sentence.
    bounds = first_part[documents.documents]
    return Documents(documents.tokens, sentences, bounds, documents.digests)


def pack(documents: Documents) -> bytes:
    """Return the documents as bytes: three counts, then lengths, digests and ids.

    Lengths are stored instead of offsets, because they need only 32 bits instead of 64.
    """
    counts = [len(documents), len(documents.sentences) - 1, len(documents.tokens)]
    arrays: list[np.ndarray] = [
        np.array(counts, np.int64),
        np.diff(documents.documents).astype(np.int32),
        np.diff(documents.sentences).astype(np.int32),
        documents.digests,
        documents.tokens.astype(np.int32),
    ]
    return b"".join(array.tobytes() for array in arrays)


def unpack(content: bytes | memoryview) -> Documents:
    """Return the documents from the bytes that `pack` made."""
    counts = np.frombuffer(content, np.int64, 3)
    position = counts.nbytes
    document_count, sentence_count, token_count = counts.tolist()

    def read(dtype: type[np.generic], count: int) -> np.ndarray:
        nonlocal position
        array = np.frombuffer(content, dtype, count, position)
        position += array.nbytes
        return array

    document_lengths = read(np.int32, document_count)
    sentence_lengths = read(np.int32, sentence_count)
    digests = read(np.uint8, document_count * DIGEST_BYTES)
    tokens = read(np.int32, token_count)
    return Documents(
        tokens,
        offsets_of(sentence_lengths),
        offsets_of(document_lengths),
        digests.reshape(-1, DIGEST_BYTES),
    )
