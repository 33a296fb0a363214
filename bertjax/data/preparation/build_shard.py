"""Building of one shard: make inputs of its documents, pack and mask them, write rows."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.data.preparation.documents import (
    CONTINUES,
    Documents,
    joined,
    split_long_sentences,
)
from bertjax.data.preparation.inputs import packing
from bertjax.data.preparation.inputs.document_pool import RangeInPool, TokenizedCorpus, open_pool
from bertjax.data.preparation.inputs.instances import Sequences, make_sequences, max_sentence_length
from bertjax.data.preparation.inputs.packing import Placement
from bertjax.data.preparation.inputs.sequence_layout import lay_out_rows
from bertjax.data.preparation.shard_assignment import Shard
from bertjax.data.preparation.tokenize_corpus import load
from bertjax.data.preparation.unit_files import check_size, size_of
from bertjax.data.records import record_format
from bertjax.data.records.manifest import WORK
from bertjax.data.records.record_format import ShardInfo
from bertjax.data.row_layout import RowLayout
from bertjax.data.tokenizers.tokenizer import Tokenizer, mask_vocabulary
from bertjax.json_values import record
from bertjax.masking import static as static_masks
from bertjax.masking.long_words import divide_long_words
from bertjax.storage import read_json, write_whole
from bertjax.types import Batch

# Another number would give other masks, which are drawn chunk by chunk.
CHUNK_ROWS = 4096
"""Number of rows that are laid out, masked and written together."""


@dataclass
class DocumentCounts:
    """Counts of the documents that a shard was made from."""

    documents: int = 0
    """Documents that are left after duplicates were removed."""
    duplicates: int = 0
    near_duplicates: int = 0
    sentences: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    """Tokens that are `[UNK]`, which is never masked; 0 where the tokenizer has none."""
    largest: int = 0
    """Tokens of the document that has the most."""
    pairs: dict[str, int] = field(default_factory=dict)
    """Pairs of sentences of all passes, as `make_sequences` counts them."""
    token_counts: list[int] | None = None
    """Occurrences of each id in the documents, from which the entropy of the held-out documents is
    computed; None for training shards.
    """

    def add(self, documents: Documents, of_range: RangeInPool, unk_id: int | None) -> None:
        """Add the counts of a range's documents, which are some of `documents`."""
        own = of_range.own
        first, end = documents.documents[own.start], documents.documents[own.stop]
        begin, stop = documents.sentences[first], documents.sentences[end]
        self.documents += len(own)
        self.duplicates += of_range.duplicates
        self.near_duplicates += of_range.near_duplicates
        self.sentences += of_range.sentences
        self.tokens += int(stop - begin)
        tokens = documents.tokens[begin:stop]
        if unk_id is not None:
            self.unknown_tokens += int(np.count_nonzero(tokens == unk_id))
        lengths = np.diff(documents.sentences[documents.documents[own.start : own.stop + 1]])
        self.largest = max(self.largest, int(lengths.max(initial=0)))
        if self.token_counts is not None:
            # Without the bit, which is no part of the id.
            ids = tokens & (CONTINUES - 1)
            counts = np.bincount(ids, minlength=len(self.token_counts))
            # A list, for the report is JSON.
            self.token_counts = (np.array(self.token_counts) + counts).tolist()


@dataclass(frozen=True)
class ShardReport:
    """A finished shard and the counts of its documents."""

    info: ShardInfo
    counts: DocumentCounts


def report_path(folder: str, shard: Shard) -> epath.Path:
    """Return the path of the JSON file in which `build` saves the `ShardReport`."""
    return epath.Path(folder) / WORK / f"{shard.file}.json"


def read_report(folder: str, shard: Shard) -> ShardReport:
    """Read the report that `build` wrote for a shard."""
    path = report_path(folder, shard)
    values = read_json(path)
    info = record(ShardInfo, values.pop("info", None), f"{path}: info")
    return ShardReport(info, record(DocumentCounts, values, str(path)))


def read_whole(folder: str, shard: Shard) -> ShardReport:
    """Read the report of a shard that is there as it says; raise `UserError` if it is not."""
    report = read_report(folder, shard)
    check_size(epath.Path(folder) / shard.file, report.info.bytes)
    return report


def build(config: Config, corpus: TokenizedCorpus, shard: Shard) -> None:
    """Write the shard and then its report, unless both exist.

    Raises `UserError` if the files cannot be written.
    """
    folder = corpus.folder
    target, report = epath.Path(folder) / shard.file, report_path(folder, shard)
    # If the process was killed between the two writes, there is a shard without a report. Then the
    # shard is made again.
    if report.exists() and size_of(target) == read_report(folder, shard).info.bytes:
        return
    tokenizer = load(folder)
    counts = DocumentCounts()
    if shard.split == "validation":
        counts.token_counts = [0] * tokenizer.vocab_size
    schema = record_format.schema_of(config.data, shard.split)
    # The rows are made while they are written, so the counts are complete only after `write_shard`.
    batches = _rows_of_shard(config, corpus, shard, tokenizer, counts)
    info = record_format.write_shard(target, shard.split, schema, batches)
    write_whole(report, json.dumps({"info": asdict(info)} | asdict(counts)).encode())


def make_rows(
    config: Config,
    documents: Documents,
    tokenizer: Tokenizer,
    split: str,
    key: tuple[int, int],
    own: range | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[Batch]:
    """Yield the rows of all `dupe_factor` passes over the documents, `CHUNK_ROWS` at a time.

    The rows of all passes are shuffled together. All randomness is seeded by `key`: (seed, number
    of the range). `documents`, `own` and `counts` are as in `make_sequences`, but with
    `cross_documents` sentences may be longer.
    """
    own = range(len(documents)) if own is None else own
    if not len(own):
        return
    if config.data.cross_documents:
        whole = joined(documents, tokenizer.layout.document_end)
        max_length = max_sentence_length(config.data, tokenizer.layout)
        documents = split_long_sentences(whole, max_length)
        own = range(1)
    # All passes are made together, so that packing has more inputs to choose from and the shuffle
    # mixes the passes.
    sequences = _make_all_passes(
        config, tokenizer.layout, documents, key, own, Counter() if counts is None else counts
    )
    rng = _generator(key, 0)
    placement = _shuffled(_place(config, sequences, tokenizer.layout), rng)
    schema = record_format.schema_of(config.data, split)
    vocabulary = mask_vocabulary(tokenizer)
    for chunk_sequences, chunk_placement in _chunks(sequences, placement):
        batch = lay_out_rows(chunk_sequences, chunk_placement, documents.tokens, tokenizer, schema)
        batch["word_starts"] = divide_long_words(
            batch["word_starts"], batch["input_ids"], vocabulary
        )
        if schema.max_predictions_per_seq:
            batch = static_masks.mask_rows(batch, config.data, vocabulary, rng)
        yield batch


def _rows_of_shard(
    config: Config,
    corpus: TokenizedCorpus,
    shard: Shard,
    tokenizer: Tokenizer,
    counts: DocumentCounts,
) -> Iterator[Batch]:
    """Yield the rows of a shard, one range after another, and add its documents to `counts`."""
    for number in range(shard.first, shard.first + shard.ranges):
        yield from _rows_of_range(config, corpus, shard, number, tokenizer, counts)


def _rows_of_range(
    config: Config,
    corpus: TokenizedCorpus,
    shard: Shard,
    number: int,
    tokenizer: Tokenizer,
    counts: DocumentCounts,
) -> Iterator[Batch]:
    # A function of its own, so that nothing here keeps a pool when the next one is read.
    pool = open_pool(corpus, number, config.data)
    of_range = pool.ranges[number]
    counts.add(pool.documents, of_range, tokenizer.unk_id)
    key = (config.seed, number)
    pairs = Counter(counts.pairs)
    yield from make_rows(config, pool.documents, tokenizer, shard.split, key, of_range.own, pairs)
    counts.pairs = dict(pairs)


def _make_all_passes(
    config: Config,
    layout: RowLayout,
    documents: Documents,
    key: tuple[int, int],
    own: range,
    counts: Counter[str],
) -> Sequences:
    """Make the inputs of `dupe_factor` passes; each pass has its own random numbers."""
    passes = []
    for number in range(1, config.data.dupe_factor + 1):
        rng = _generator(key, number)
        passes.append(make_sequences(documents, config.data, layout, rng, own, counts))
    columns = zip(*passes, strict=True)
    return Sequences(*(np.concatenate(column) for column in columns))


def _generator(key: tuple[int, int], purpose: int) -> np.random.Generator:
    """Make a random generator; `purpose` is 0 for shuffling and masks, and `n` for pass `n`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, purpose))))


def _place(config: Config, sequences: Sequences, layout: RowLayout) -> Placement:
    max_inputs = config.data.max_sequences_per_row
    if max_inputs == 1:
        return packing.alone(len(sequences.label))
    lengths = sequences.lengths(layout)
    return packing.pack(lengths, config.data.max_seq_length, max_inputs)


def _shuffled(placement: Placement, rng: np.random.Generator) -> Placement:
    """Renumber the rows at random, because packing puts rows with similar lengths together."""
    order = rng.permutation(int(placement.row.max(initial=-1)) + 1)
    return placement._replace(row=order[placement.row])


def _chunks(sequences: Sequences, placement: Placement) -> Iterator[tuple[Sequences, Placement]]:
    """Yield the inputs of `CHUNK_ROWS` rows at a time; row numbers start at 0 in each chunk."""
    order = np.argsort(placement.row, kind="stable")
    row_count = int(placement.row.max(initial=-1)) + 1
    first_rows = np.arange(0, row_count + CHUNK_ROWS, CHUNK_ROWS)
    bounds = np.searchsorted(placement.row[order], first_rows)
    # Not strict: the last of `first_rows` is the end of the last chunk.
    for first_row, (begin, end) in zip(first_rows, pairwise(bounds), strict=False):
        here = order[begin:end]
        yield (
            Sequences(*(field[here] for field in sequences)),
            Placement(
                placement.row[here] - first_row, placement.offset[here], placement.number[here]
            ),
        )
