"""A piece of the corpus as ids on the disk, cut by the ranges that its documents fall in."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.data.corpus.work_units import WorkUnit, read_documents
from bertjax.data.preparation import documents as docs
from bertjax.data.preparation import near_duplicates
from bertjax.data.preparation.chinese_words import mark_words
from bertjax.data.preparation.documents import Documents
from bertjax.data.preparation.shard_assignment import Plan
from bertjax.data.records.manifest import WORK
from bertjax.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from bertjax.errors import disk_errors
from bertjax.storage import read_span, write_whole, written_whole

TOKENIZER = "tokenizer"
DONE = "done.json"
BATCH_CHARACTERS = 1 << 18
PART_TOKENS = 8_000_000  # a part's memory: 32 MB of tokens, and as much again while it is sorted


def tokenise(config: Config, folder: str, plan: Plan, work_unit: WorkUnit) -> None:
    """Write `.work/NAME/` with the piece's documents as ids, if that is not done.

    It holds parts, each a file of blocks by range, and last `done.json` with what was counted.
    """
    out = epath.Path(folder) / WORK / work_unit.name
    if (out / DONE).exists():
        return
    if out.exists():
        out.rmtree()
    counts: Counter[str] = Counter()
    try:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        for number, documents in enumerate(
            _parts(_encoded(work_unit, config, load(folder), counts))
        ):
            _write_part(out / f"part-{number:05d}", documents, plan)
            if config.data.near_duplicate_threshold:
                near_duplicates.write_signatures(out / f"signatures-{number:05d}", documents)
        write_whole(out / DONE, json.dumps(counts).encode())
    except BaseException:
        if out.exists():
            out.rmtree()  # of no use unfinished, and the disk may be full
        raise


def parts_of(work: epath.Path, work_units: list[str]) -> list[epath.Path]:
    """The parts of all pieces."""
    return [
        part for name in work_units for part in sorted((work / name).glob("part-*"), key=os.fspath)
    ]


def read_range(parts: list[epath.Path], number: int) -> Documents:
    """All documents of a range, from every part."""
    found = []
    for part in parts:
        begin, end = np.frombuffer(read_span(part, 8 * number, 8 * number + 16), np.int64).tolist()
        if begin < end:
            found.append(docs.unpack(read_span(part, begin, end)))
    return docs.join(found)


@lru_cache(maxsize=1)
def load(folder: str) -> Tokenizer:
    """The tokenizer of a preparation, loaded once a process."""
    return load_tokenizer(epath.Path(folder) / TOKENIZER)


def _parts(blocks: Iterator[Documents]) -> Iterator[Documents]:
    """The blocks joined to about `PART_TOKENS` each."""
    pending: list[Documents] = []
    size = 0
    for block in blocks:
        pending.append(block)
        size += len(block.tokens) + 4 * len(block)
        if size >= PART_TOKENS:
            yield docs.join(pending)
            pending, size = [], 0
    if pending:
        yield docs.join(pending)


def _write_part(path: epath.Path, documents: Documents, plan: Plan) -> None:
    """Where each range's block begins, int64, and where the last ends; then the blocks."""
    place = plan.place(documents.digests)
    order = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[order], np.arange(plan.ranges + 1))
    blocks = [
        docs.pack(docs.take(documents, order[a:b])) if a < b else b"" for a, b in pairwise(bounds)
    ]
    starts = np.cumsum([8 * (plan.ranges + 1), *map(len, blocks)]).astype(np.int64)
    with written_whole(path) as file:
        file.write(starts.tobytes())
        for block in blocks:
            file.write(block)


def _encoded(
    work_unit: WorkUnit, config: Config, tokenizer: Tokenizer, counts: Counter[str]
) -> Iterator[Documents]:
    """The piece's documents as ids, about `BATCH_CHARACTERS` at a time."""
    texts: list[list[str]] = []
    characters = 0
    for document in read_documents(work_unit, config.data, counts):
        texts.append(document)
        characters += sum(map(len, document))
        if characters >= BATCH_CHARACTERS:
            counts["characters"] += characters
            yield _encode(texts, config, tokenizer)
            texts, characters = [], 0
    counts["characters"] += characters
    if texts:
        yield _encode(texts, config, tokenizer)


def _encode(texts: list[list[str]], config: Config, tokenizer: Tokenizer) -> Documents:
    sentences = [sentence for text in texts for sentence in text]
    tokens, offsets = tokenizer.encode_batch(sentences)
    if config.data.word_segmenter == "jieba":
        tokens = mark_words(sentences, tokens, offsets, tokenizer)
    # A sentence may come to no token (control characters only), and with it a document.
    real = np.diff(offsets) > 0
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])[real]
    sizes = np.bincount(owner, minlength=len(texts))
    digests = np.frombuffer(b"".join(map(docs.digest, texts)), np.uint8).reshape(
        -1, docs.DIGEST_BYTES
    )
    return Documents(
        tokens,
        np.concatenate([[0], np.cumsum(np.diff(offsets)[real])]).astype(np.int64),
        np.concatenate([[0], np.cumsum(sizes[sizes > 0])]).astype(np.int64),
        digests[sizes > 0],
    )
