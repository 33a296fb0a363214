"""A shard from its documents: unique, made into inputs, packed, laid out in rows, masked, written."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.data.preparation import documents as docs
from bertjax.data.preparation import near_duplicates, packing
from bertjax.data.preparation import sequence_layout as rows
from bertjax.data.preparation.documents import CONTINUES, Documents
from bertjax.data.preparation.instances import Sequences, joined, make_sequences
from bertjax.data.preparation.packing import Placement
from bertjax.data.preparation.shard_assignment import Shard
from bertjax.data.preparation.tokenize_corpus import load, parts_of, read_range
from bertjax.data.records import record_format as shards
from bertjax.data.records.manifest import WORK
from bertjax.data.records.record_format import ShardInfo
from bertjax.data.tokenizers.tokenizer import Tokenizer, mask_vocabulary
from bertjax.masking import static as static_masks
from bertjax.storage import write_whole
from bertjax.types import Batch

CHUNK_ROWS = 4096


@dataclass
class Written:
    """A shard, and what was counted on the way to it."""

    info: ShardInfo
    documents: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    sentences: int = 0
    tokens: int = 0
    token_counts: list[int] | None = None
    """How often each id occurs in the documents; of held-out shards only."""


def note_of(folder: str, shard: Shard) -> epath.Path:
    """Where `build` leaves its `Written`, as JSON."""
    return epath.Path(folder) / WORK / f"{shard.file}.json"


def read_written(folder: str, shard: Shard) -> Written:
    """What `build` wrote of a shard."""
    values = json.loads(note_of(folder, shard).read_text())
    return Written(**values | {"info": ShardInfo(**values["info"])})


def build(config: Config, folder: str, work_units: list[str], shard: Shard) -> None:
    """Write the shard and then the note of it, if that is not done."""
    target, note = epath.Path(folder) / shard.file, note_of(folder, shard)
    if note.exists() and target.exists():
        return
    work, tokenizer = epath.Path(folder) / WORK, load(folder)
    parts = parts_of(work, work_units)
    near = near_duplicates.read_dropped(work) if config.data.near_duplicate_threshold else None
    nothing = ShardInfo(shard.file, shard.split, 0, 0, "", 0)
    written = Written(
        nothing, token_counts=[0] * tokenizer.vocab_size if shard.split == "validation" else None
    )

    def blocks() -> Iterator[Batch]:
        for number in range(shard.first, shard.first + shard.ranges):
            documents = _take_range(parts, number, near, written)
            yield from make_rows(config, documents, tokenizer, shard.split, (config.seed, number))

    schema = shards.schema_of(config.data, shard.split)
    written.info = shards.write_shard(target, shard.split, schema, blocks())
    write_whole(note, json.dumps(asdict(written)).encode())


def make_rows(
    config: Config, documents: Documents, tokenizer: Tokenizer, split: str, key: tuple[int, int]
) -> Iterator[Batch]:
    """The rows of all `dupe_factor` passes over the documents, shuffled, `CHUNK_ROWS` at a time."""

    def generator(purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, purpose))))

    if not len(documents):
        return
    if config.data.cross_documents:
        documents = joined(documents, tokenizer.sep_id)
    passes = range(1, config.data.dupe_factor + 1)
    made = [make_sequences(documents, config.data, generator(number)) for number in passes]
    sequences = Sequences(*(np.concatenate(column) for column in zip(*made, strict=True)))
    del made
    rng = generator(0)
    place = _shuffled(_placed(config, sequences), rng)
    schema, vocabulary = shards.schema_of(config.data, split), mask_vocabulary(tokenizer)
    order = np.argsort(place.row, kind="stable")
    bounds = np.searchsorted(
        place.row[order], np.arange(0, place.row.max(initial=-1) + 1 + CHUNK_ROWS, CHUNK_ROWS)
    )
    for first, (a, b) in enumerate(pairwise(bounds)):
        here = order[a:b]
        chunk = Placement(
            place.row[here] - first * CHUNK_ROWS, place.offset[here], place.number[here]
        )
        batch = rows.layout(
            Sequences(*(x[here] for x in sequences)), chunk, documents.tokens, tokenizer, schema
        )
        if schema.max_predictions_per_seq:
            batch = static_masks.mask_rows(batch, config.data, vocabulary, rng)
        yield batch


def _placed(config: Config, sequences: Sequences) -> Placement:
    most = config.data.max_sequences_per_row
    if most == 1:
        return packing.alone(len(sequences.label))
    return packing.pack(sequences.lengths, config.data.max_seq_length, most)


def _shuffled(place: Placement, rng: np.random.Generator) -> Placement:
    order = rng.permutation(int(place.row.max(initial=-1)) + 1)
    return place._replace(row=order[place.row])


def _take_range(
    parts: list[epath.Path], number: int, near: np.ndarray | None, written: Written
) -> Documents:
    """The documents of a range, each content once, sorted by digest: the same whatever the order of
    the sources.

    Those whose digests are in `near` are left out.
    """
    gathered = read_range(parts, number)
    keys = np.ascontiguousarray(gathered.digests).view(f"V{docs.DIGEST_BYTES}").ravel()
    unique, first = np.unique(keys, return_index=True)
    kept = first if near is None else first[~np.isin(unique, near)]
    documents = docs.take(gathered, kept)
    written.documents += len(documents)
    written.duplicates += len(gathered) - len(first)
    written.near_duplicates += len(first) - len(kept)
    written.sentences += len(documents.sentences) - 1
    written.tokens += len(documents.tokens)
    if written.token_counts is not None:
        found = np.bincount(documents.tokens & (CONTINUES - 1), minlength=len(written.token_counts))
        written.token_counts = (np.array(written.token_counts) + found).tolist()
    return documents
