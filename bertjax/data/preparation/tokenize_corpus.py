"""Tokenized work units on the disk, with their documents grouped by range.

A part is a file: int64 offsets of the ranges' blocks and of the end, then the blocks. So one or
several consecutive ranges are gathered by reading one stretch of each part.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise, repeat

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.config.phases.folders import TOKENIZER
from bertjax.data.corpus.scripts import script_counts
from bertjax.data.corpus.work_units import WorkUnit, read_documents
from bertjax.data.preparation import documents as docs
from bertjax.data.preparation import near_duplicates
from bertjax.data.preparation.chinese_words import mark_words
from bertjax.data.preparation.documents import Documents
from bertjax.data.preparation.shard_assignment import Plan
from bertjax.data.preparation.unit_files import PARTS, is_whole, write_done
from bertjax.data.records.manifest import WORK
from bertjax.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from bertjax.errors import disk_errors
from bertjax.storage import read_span, written_whole

TOKENS = "tokens"
"""The count in `done.json` of all tokens, those of duplicates included."""
COUNTED = ("characters", "visible_characters", "unknown_characters", "stripped_characters")
"""Names of the counts of tokenization.

In this order: characters in sentences, those that are no spaces, and of these: characters in an
unknown token, characters that lose a mark (`losses.Losses`).
"""
SCRIPTS = "characters/{}/{}"
"""Name in `done.json` of the number of characters of a split in a script."""
BATCH_CHARACTERS = 1 << 18
"""Number of characters that are tokenized together."""
PART_TOKENS = 8_000_000  # a part takes 32 MB of memory, and the same again while it is sorted
_OFFSET_BYTES = 8


def tokenize_unit(config: Config, folder: str, plan: Plan, work_unit: WorkUnit) -> None:
    """Write `.work/NAME/` with the documents of a work unit as ids, if that is not done.

    It holds parts, each a file of blocks by range, and last `done.json` with the counts. Raises
    `UserError` for text that cannot be read or a disk that refuses.
    """
    out = epath.Path(folder) / WORK / work_unit.name
    # That is why a pool of processes, Beam and a restart after a kill are the same thing.
    if is_whole(out):
        return
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    batches = _tokenized(work_unit, config, load(folder), plan, counts)
    for number, documents in enumerate(_parts(batches)):
        counts[TOKENS] += len(documents.tokens)
        _write_part(out / f"part-{number:05d}", documents, plan)
        if config.data.near_duplicate_threshold:
            near_duplicates.write_signatures(out / f"signatures-{number:05d}", documents)
    write_done(out, counts)


def parts_of(work: epath.Path, work_units: Sequence[str]) -> list[epath.Path]:
    """List the parts of all work units, by their names, in order."""
    parts: list[epath.Path] = []
    for name in work_units:
        # Sorted, because `glob` gives files in any order; sorted paths are in order of the numbers.
        parts += sorted((work / name).glob(PARTS), key=os.fspath)
    return parts


def read_ranges(parts: Sequence[epath.Path], numbers: range) -> list[Documents]:
    """Read all documents of each of some consecutive ranges, from every part."""
    blocks: list[list[Documents]] = [[] for _ in numbers]
    for part in parts:
        table = read_span(part, _OFFSET_BYTES * numbers.start, _OFFSET_BYTES * (numbers.stop + 1))
        offsets = np.frombuffer(table, np.int64).tolist()
        # Their blocks stand one after another, so one read gives them all.
        content = memoryview(read_span(part, offsets[0], offsets[-1]))
        for of_range, (begin, end) in zip(blocks, pairwise(offsets), strict=True):
            if begin < end:
                block = content[begin - offsets[0] : end - offsets[0]]
                of_range.append(docs.unpack(block))
    return [docs.join(of_range) for of_range in blocks]


@lru_cache(maxsize=1)
def load(folder: str) -> Tokenizer:
    """Load the tokenizer of a preparation; each process loads it only once."""
    return load_tokenizer(epath.Path(folder) / TOKENIZER)


def _parts(batches: Iterator[Documents]) -> Iterator[Documents]:
    """Join batches of documents to parts of about `PART_TOKENS` tokens."""
    pending: list[Documents] = []
    size = 0
    for batch in batches:
        pending.append(batch)
        # A document's digest takes as much memory as 4 tokens.
        size += len(batch.tokens) + 4 * len(batch)
        if size >= PART_TOKENS:
            yield docs.join(pending)
            pending, size = [], 0
    if pending:
        yield docs.join(pending)


def _write_part(path: epath.Path, documents: Documents, plan: Plan) -> None:
    """Write the offsets of the ranges' blocks, and of the end, int64; then the blocks."""
    range_numbers = plan.ranges_of(documents.digests)
    order = np.argsort(range_numbers, kind="stable")
    bounds = np.searchsorted(range_numbers[order], np.arange(plan.ranges + 1))
    blocks = []
    for begin, end in pairwise(bounds):
        # An empty block instead of one of no documents: most ranges of a small part are empty.
        empty = begin == end
        blocks.append(b"" if empty else docs.pack(docs.take(documents, order[begin:end])))
    first_block = _OFFSET_BYTES * (plan.ranges + 1)
    offsets = np.cumsum([first_block, *map(len, blocks)]).astype(np.int64)
    with written_whole(path) as file:
        file.write(offsets.tobytes())
        for block in blocks:
            file.write(block)


def _tokenized(
    work_unit: WorkUnit, config: Config, tokenizer: Tokenizer, plan: Plan, counts: Counter[str]
) -> Iterator[Documents]:
    """Yield the documents of a work unit as ids, about `BATCH_CHARACTERS` at a time."""
    for texts in _batches(work_unit, config, counts):
        # Of the text and not of the ids: under another vocabulary a document stays in its split.
        digests = np.frombuffer(b"".join(map(docs.digest, texts)), np.uint8)
        digests = digests.reshape(-1, docs.DIGEST_BYTES)
        _count_scripts(texts, plan.held_out(digests), counts)
        yield _tokenize(texts, digests, config, tokenizer, counts)


def _batches(
    work_unit: WorkUnit, config: Config, counts: Counter[str]
) -> Iterator[list[list[str]]]:
    """Yield the documents of a work unit, each a list of sentences, in batches."""
    texts: list[list[str]] = []
    characters = 0
    for document in read_documents(work_unit, config.data, counts):
        texts.append(document)
        characters += sum(map(len, document))
        if characters >= BATCH_CHARACTERS:
            counts["characters"] += characters
            yield texts
            texts, characters = [], 0
    counts["characters"] += characters
    if texts:
        yield texts


def _count_scripts(texts: list[list[str]], held_out: np.ndarray, counts: Counter[str]) -> None:
    """Add the characters of each script in each split to `counts`, as `SCRIPTS` says."""
    for split, wanted in (("train", False), ("validation", True)):
        chosen = itertools.compress(texts, held_out == wanted)
        sentences = list(itertools.chain.from_iterable(chosen))
        for script, count in script_counts(sentences).items():
            counts[SCRIPTS.format(split, script)] += count


def _tokenize(
    texts: list[list[str]],
    digests: np.ndarray,
    config: Config,
    tokenizer: Tokenizer,
    counts: Counter[str],
) -> Documents:
    """Tokenize documents, each a list of sentences, and add to the counts of `COUNTED`.

    `digests` are those of the documents, uint8 `[D, 16]`.
    """
    sentences = [sentence for text in texts for sentence in text]
    tokens, offsets, losses = tokenizer.encode_counted(sentences)
    spaces = sum(map(str.count, sentences, repeat(" ")))
    counts["visible_characters"] += sum(map(len, sentences)) - spaces
    counts["unknown_characters"] += losses.unknown
    counts["stripped_characters"] += losses.stripped
    if config.data.word_segmenter == "jieba":
        tokens = mark_words(sentences, tokens, offsets, tokenizer)
    # A sentence of control characters only has no tokens; so a document may have none either.
    lengths = np.diff(offsets)
    not_empty = lengths > 0
    sentence_counts = [len(text) for text in texts]
    document_numbers = np.repeat(np.arange(len(texts)), sentence_counts)[not_empty]
    sizes = np.bincount(document_numbers, minlength=len(texts))
    return Documents(
        tokens,
        docs.offsets_of(lengths[not_empty]),
        docs.offsets_of(sizes[sizes > 0]),
        digests[sizes > 0],
    )
