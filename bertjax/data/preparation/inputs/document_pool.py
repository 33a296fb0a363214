"""Documents that are in memory together: those of a range, and the others that B may come from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from etils import epath

from bertjax.config import DataConfig
from bertjax.data.preparation import documents as docs
from bertjax.data.preparation import near_duplicates
from bertjax.data.preparation.documents import Documents
from bertjax.data.preparation.inputs.instances import max_sentence_length
from bertjax.data.preparation.shard_assignment import Plan
from bertjax.data.preparation.tokenize_corpus import parts_of, read_ranges
from bertjax.data.records.manifest import WORK
from bertjax.data.row_layout import RowLayout


@dataclass(frozen=True)
class TokenizedCorpus:
    """The tokenized documents of a preparation, as every worker finds them on the disk."""

    folder: str
    work_units: tuple[str, ...]
    """The names of the work units."""
    layout: RowLayout
    """The tokenizer's."""
    plan: Plan
    near_duplicates_dropped: bool
    """True if near-duplicate documents are left out."""
    preparation: str
    """A name that no other call of `prepare` has: what is kept in memory is of this call alone."""

    @property
    def _work(self) -> epath.Path:
        return epath.Path(self.folder) / WORK

    def parts(self) -> list[epath.Path]:
        """List the files of tokenized documents."""
        return parts_of(self._work, self.work_units)

    def dropped(self) -> np.ndarray:
        """Return the digests of the documents to leave out, sorted; `V16 [n]`."""
        if self.near_duplicates_dropped:
            return near_duplicates.read_dropped(self._work)
        return np.zeros(0, near_duplicates.DIGEST_DTYPE)


@dataclass(frozen=True)
class RangeInPool:
    """The documents of one range in a pool."""

    own: range
    """Their numbers."""
    sentences: int
    """The number of their sentences, before long ones were divided."""
    duplicates: int
    """Documents left out because they are exact copies."""
    near_duplicates: int


@dataclass(frozen=True)
class DocumentPool:
    """Documents of some ranges of a split; a random B may be of any of them."""

    documents: Documents
    """Without duplicates; sorted by range, and in a range by digest. So the order depends on the
    content alone, and not on the order of the sources.
    """
    ranges: dict[int, RangeInPool]
    """What each range has in it, by the range's number."""


def open_pool(corpus: TokenizedCorpus, number: int, data: DataConfig) -> DocumentPool:
    """Read the documents of a range and, with `next_sentence`, of the other ranges of its pool.

    If that is just one document, following ranges of the split are read too, until there are two or
    the split has no more; its first range follows its last one. Sentences longer than a row are
    divided. The pool is kept: a process makes the rows of all of its ranges, one after another.
    """
    needs_others = data.sentence_objective == "next_sentence"
    numbers = corpus.plan.pool_of(number) if needs_others else range(number, number + 1)
    key = (corpus, numbers, data)
    for kept_key, kept_pool in list(_kept):
        if kept_key == key:
            return kept_pool
    _kept.clear()  # before the next one is read: in memory there is place for one
    pool = _read_pool(corpus, numbers, 2 if needs_others else 0)
    # Documents that are joined get separators, so their sentences are divided after that.
    if not data.cross_documents:
        max_length = max_sentence_length(data, corpus.layout)
        divided = docs.split_long_sentences(pool.documents, max_length)
        pool = replace(pool, documents=divided)
    _kept.append((key, pool))
    return pool


def forget_pool() -> None:
    """Free the memory of the pool that `open_pool` keeps."""
    _kept.clear()


_kept: list[tuple[tuple[TokenizedCorpus, range, DataConfig], DocumentPool]] = []
"""The newest pool of this process, with what it was read for."""


def _read_pool(corpus: TokenizedCorpus, numbers: range, min_documents: int) -> DocumentPool:
    parts, dropped = corpus.parts(), corpus.dropped()
    split = corpus.plan.split_of(numbers.start)
    contents: list[Documents] = []
    ranges: dict[int, RangeInPool] = {}
    count = 0
    for some in _chunks(numbers, split):
        if ranges and count >= min_documents:
            break
        for number, gathered in zip(some, read_ranges(parts, some), strict=True):
            documents, kept = without_duplicates(gathered, dropped)
            contents.append(documents)
            own = range(count, count + len(documents))
            ranges[number] = RangeInPool(own, len(documents.sentences) - 1, *kept)
            count += len(documents)
    # A single range is not copied.
    whole = contents[0] if len(contents) == 1 else docs.join(contents)
    return DocumentPool(whole, ranges)


def _chunks(numbers: range, split: range) -> Iterator[range]:
    """Yield `numbers`, then the ranges after them, more and more at a time, then those before."""
    yield numbers
    yield from _doubling(range(numbers.stop, split.stop))
    yield from _doubling(range(split.start, numbers.start))


def _doubling(numbers: range) -> Iterator[range]:
    """Divide `numbers` into parts of 1, 2, 4, … of them.

    Ranges that are read together are contiguous in the files. So a few documents are found quickly
    among thousands of empty ranges.
    """
    begin, size = numbers.start, 1
    while begin < numbers.stop:
        yield range(begin, min(begin + size, numbers.stop))
        begin, size = begin + size, 2 * size


def without_duplicates(
    gathered: Documents, dropped: np.ndarray
) -> tuple[Documents, tuple[int, int]]:
    """Return the documents sorted by digest, and the numbers of duplicates and near-duplicates.

    These are left out. Documents whose digests are in `dropped` are the near-duplicates.
    """
    # Documents with the same digest have the same content, so it does not matter which one is kept.
    unique, first = np.unique(_digests(gathered), return_index=True)
    kept = first[~np.isin(unique, dropped)]
    counts = (len(gathered) - len(first), len(first) - len(kept))
    return docs.take(gathered, kept), counts


def _digests(documents: Documents) -> np.ndarray:
    """Return each digest as one item, which numpy compares faster than rows of bytes; `V16 [D]`."""
    digests = np.ascontiguousarray(documents.digests)
    return digests.view(near_duplicates.DIGEST_DTYPE).ravel()
