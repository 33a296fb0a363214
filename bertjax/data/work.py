"""The two tasks that preparation is made of: tokenise a source, write a shard. Each runs in any process."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.data import documents as docs
from bertjax.data import instances, shards
from bertjax.data.corpus import Source, read_documents
from bertjax.data.documents import Documents
from bertjax.data.instances import Spans
from bertjax.data.masking import mask_tokens
from bertjax.data.shards import Schema, ShardInfo
from bertjax.data.tokenizer import Tokenizer, load_tokenizer
from bertjax.errors import disk_errors

WORK, TOKENIZER = ".work", "tokenizer"
BATCH_SENTENCES = 2048
PART_TOKENS = 8_000_000  # a part's memory: 32 MB of tokens, and as much again while it is sorted
CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Bucket:
    """The documents of one shard."""

    split: str
    number: int
    of: int

    @property
    def file(self) -> str:
        """The shard's file name."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}.tfrecord"


@dataclass(frozen=True)
class Written:
    """A shard, and what was counted on the way to it."""

    info: ShardInfo
    documents: int
    duplicates: int
    sentences: int
    tokens: int
    token_counts: list[int]
    """How often each id occurs in the bucket's documents; empty for training shards."""


def buckets(config: Config) -> list[Bucket]:
    """All shards: training ones, then held-out ones in proportion, one at least if any text is held out."""
    share = config.data.validation_fraction
    heldout = max(1, round(config.data.num_shards * share)) if share else 0
    sizes = (("train", config.data.num_shards), ("validation", heldout))
    return [Bucket(split, number, size) for split, size in sizes for number in range(size)]


def bucket_of(digests: np.ndarray, config: Config) -> np.ndarray:
    """Which of `buckets` each document falls in, by its digest alone; int64 `[D]`."""
    words = np.ascontiguousarray(digests).view("<u8").reshape(-1, 2)
    every = buckets(config)
    train = config.data.num_shards
    heldout = len(every) - train
    held = words[:, 0] < np.uint64(min(int(config.data.validation_fraction * 2.0**64), 2**64 - 1))
    place = np.where(held, train + words[:, 1] % np.uint64(max(heldout, 1)), words[:, 1] % np.uint64(train))
    return place.astype(np.int64)


def tokenise(config: Config, folder: str, source: Source, name: str) -> None:
    """Write `.work/NAME/` with the source's documents as ids, in parts, each part sorted by bucket."""
    out = Path(folder) / WORK / name
    if (out / "done").exists():
        return
    shutil.rmtree(out, ignore_errors=True)
    try:
        with disk_errors(out):
            out.mkdir(parents=True)
        _write_parts(config, out, _encoded(source, config, _tokenizer(folder)))
        with disk_errors(out):
            (out / "done").touch()
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # of no use unfinished, and the disk may be full
        raise


def _write_parts(config: Config, out: Path, blocks: Iterator[Documents]) -> None:
    """Save the blocks in parts of about `PART_TOKENS`, each sorted by bucket, with the place where each begins."""
    pending: list[Documents] = []

    def flush() -> None:
        whole = docs.join(pending)
        place = bucket_of(whole.digests, config)
        order = np.argsort(place, kind="stable")
        part = out / f"part-{len(list(out.iterdir())):05d}"
        starts = np.searchsorted(place[order], np.arange(len(buckets(config)) + 1))
        with disk_errors(part):
            docs.save(part, docs.take(whole, order))
            np.save(part / "starts.npy", starts)
        pending.clear()

    size = 0
    for block in blocks:
        pending.append(block)
        size += len(block.tokens)
        if size >= PART_TOKENS:
            flush()
            size = 0
    if pending:
        flush()


def _encoded(source: Source, config: Config, tokenizer: Tokenizer) -> Iterator[Documents]:
    """The source's documents as ids, about `BATCH_SENTENCES` sentences at a time."""
    texts: list[list[str]] = []
    sentences = 0
    for document in read_documents(source, config.data):
        texts.append(document)
        sentences += len(document)
        if sentences >= BATCH_SENTENCES:
            yield _encode(texts, tokenizer)
            texts, sentences = [], 0
    if texts:
        yield _encode(texts, tokenizer)


def _encode(texts: list[list[str]], tokenizer: Tokenizer) -> Documents:
    tokens, offsets = tokenizer.encode_batch([sentence for text in texts for sentence in text])
    # A sentence may come to no token (control characters only), and with it a document.
    real = np.diff(offsets) > 0
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])[real]
    sizes = np.bincount(owner, minlength=len(texts))
    digests = np.frombuffer(b"".join(map(docs.digest, texts)), np.uint8).reshape(-1, docs.DIGEST_BYTES)
    return Documents(
        tokens,
        np.concatenate([[0], np.cumsum(np.diff(offsets)[real])]).astype(np.int64),
        np.concatenate([[0], np.cumsum(sizes[sizes > 0])]).astype(np.int64),
        digests[sizes > 0],
    )


def write_bucket(config: Config, folder: str, bucket: Bucket) -> Written:
    """Make the instances of a bucket's documents and write its shard, if that is not done."""
    target = epath.Path(folder) / bucket.file
    note = Path(folder) / WORK / f"{bucket.file}.json"
    if note.exists() and target.exists():
        values = json.loads(note.read_text())
        return Written(**values | {"info": ShardInfo(**values["info"])})
    tokenizer = _tokenizer(folder)
    number = buckets(config).index(bucket)
    gathered = _gather(Path(folder) / WORK, number)
    documents = _unique(gathered)
    blocks = _blocks(config, documents, tokenizer, (config.seed, number))
    schema = Schema(config.data.max_seq_length, config.data.max_predictions_per_seq)
    info = shards.write_shard(target, bucket.split, schema, blocks)
    heldout = bucket.split == "validation"
    written = Written(
        info,
        documents=len(documents),
        duplicates=len(gathered) - len(documents),
        sentences=len(documents.sentences) - 1,
        tokens=len(documents.tokens),
        token_counts=np.bincount(documents.tokens, minlength=tokenizer.vocab_size).tolist() if heldout else [],
    )
    unfinished = epath.Path(f"{note}.unfinished")
    with disk_errors(note), shards.removed_on_failure(unfinished):
        unfinished.write_text(json.dumps(asdict(written)))
        unfinished.replace(note)
    return written


def _gather(work: Path, number: int) -> Documents:
    """All documents of a bucket, from every part of every source."""
    found = []
    for part in sorted(work.glob("*/part-*")):
        starts = np.load(part / "starts.npy")
        mapped = docs.slice_of(docs.load(part), starts[number], starts[number + 1])
        # Copied, so that a corpus of many files does not meet the system's limit of maps.
        found.append(Documents(*map(np.array, mapped)))
    return docs.join(found)


def _unique(documents: Documents) -> Documents:
    """Sorted by digest, each content once: the same whatever the order of the sources."""
    keys = np.ascontiguousarray(documents.digests).view(f"V{docs.DIGEST_BYTES}").ravel()
    _, first = np.unique(keys, return_index=True)
    return docs.take(documents, first)


def _blocks(
    config: Config, documents: Documents, tokenizer: Tokenizer, key: tuple[int, int]
) -> Iterator[dict[str, np.ndarray]]:
    """The masked instances of all `dupe_factor` passes, shuffled, `CHUNK_ROWS` at a time."""

    def generator(purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, purpose))))

    numbers = range(1, config.data.dupe_factor + 1)
    passes = [instances.make_instances(documents, config.data, generator(i)) for i in numbers]
    spans = Spans(*(np.concatenate(column) for column in zip(*passes, strict=True)))
    rng = generator(0)
    order = rng.permutation(len(spans.a_begin))
    special = np.zeros(tokenizer.vocab_size, bool)
    special[tokenizer.special_ids] = True
    ordinary = np.flatnonzero(~special).astype(np.int32)
    for begin in range(0, len(order), CHUNK_ROWS):
        chunk = Spans(*(column[order[begin : begin + CHUNK_ROWS]] for column in spans))
        rows = instances.layout(
            chunk, documents.tokens, tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, config.data.max_seq_length
        )
        yield rows | mask_tokens(
            rows["input_ids"],
            (rows["input_mask"] > 0) & ~special[rows["input_ids"]],
            mask_id=tokenizer.mask_id,
            random_ids=ordinary,
            mlm_probability=config.data.mlm_probability,
            max_predictions=config.data.max_predictions_per_seq,
            rng=rng,
        )


@lru_cache(maxsize=1)
def _tokenizer(folder: str) -> Tokenizer:
    return load_tokenizer(epath.Path(folder) / TOKENIZER)
