"""Verification and description of a prepared folder, for `bertjax inspect`."""

import itertools

import numpy as np
from etils import epath

from bertjax.data.records import record_format, shard_files
from bertjax.data.records.foreign_files import check_all_named
from bertjax.data.records.foreign_records import describe_files
from bertjax.data.records.manifest import SPLITS, WORK, Manifest, read_manifest
from bertjax.data.records.pair_counts import describe_pairs
from bertjax.data.records.reader import PreparedRecords
from bertjax.data.records.record_format import Schema
from bertjax.data.records.remarks import remarks
from bertjax.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from bertjax.errors import UserError, check
from bertjax.given_files import place_of
from bertjax.masking.static import unmask
from bertjax.types import Batch

BLOCK_RECORDS = 8192
"""Records that are decoded at once."""
HISTOGRAM_BARS, BAR_WIDTH = 10, 40
TOP_TOKENS = 10


def summarize(folder: epath.PathLike, *, examples: int = 3) -> str:
    """Return lines of text with statistics of each split, and `examples` rows as text.

    The checksum of every shard is verified first. Of a folder with TFRecord files of another script
    the result has the files and the number of rows of each split. Raises `UserError` if a folder
    has none and was not finished by `bertjax prepare`, or if a shard is missing or damaged, naming
    it.
    """
    path = place_of(folder)
    manifest = read_manifest(path)
    if manifest is None:
        # The files of an unfinished preparation are no files of another script.
        if path.is_dir() and not (path / WORK).exists():
            files = describe_files(path)
            if files:
                return "\n".join([f"TFRecord files of another script: {path}", *files])
        raise UserError(
            f"{path}: found no manifest.json, expected a folder that bertjax prepare finished"
        )
    check_all_named(path, manifest)
    tokenizer = load_tokenizer(path / "tokenizer")
    check(
        # Else the rows would be shown with other words than they have, and counted so.
        tokenizer.fingerprint == manifest.tokenizer_fingerprint,
        where=str(path / "tokenizer"),
        found=f"tokenizer {tokenizer.fingerprint[:12]}",
        expected=f"{manifest.tokenizer_fingerprint[:12]}, with which the folder was prepared",
    )
    lines = [f"prepared: {path}", f"vocabulary: {manifest.vocab_size:,}"]
    lines.append(manifest.describe_counts())
    lines += manifest.describe_snapshots()
    lines += [f"note: {remark}" for remark in remarks(manifest)]
    for split in SPLITS:
        if manifest.split(split):
            lines += ["", *_describe_split(path, manifest, split, tokenizer)]
    # Held-out rows are shown if there are any, because they are always masked.
    split = "validation" if manifest.split("validation") else "train"
    lines += ["", f"first rows of {split}:"]
    records = PreparedRecords(path, manifest, split)
    batch = records.read(np.arange(min(examples, len(records))))
    for row in range(len(batch["input_ids"])):
        lines += _describe_row(batch, row, tokenizer)
    return "\n".join(lines)


class _Totals:
    """Counts over the records of a split."""

    def __init__(self, schema: Schema, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.lengths = np.zeros(schema.max_seq_length + 1, np.int64)
        """Number of rows of each length in ids."""
        self.ids = np.zeros(tokenizer.vocab_size, np.int64)
        """Occurrences of each id, before masking."""
        self.sequences = 0
        self.predicted = self.masked = self.kept = 0
        self.positive_labels = 0

    def add(self, batch: Batch) -> None:
        """Count a block of records."""
        self.lengths += np.bincount(batch["input_mask"].sum(axis=1), minlength=len(self.lengths))
        if "pack_ids" in batch:
            # Inputs are numbered 1, 2, … in their row.
            self.sequences += int(batch["pack_ids"].max(axis=1, initial=0).sum())
        else:
            self.sequences += len(batch["input_ids"])
        if "next_sentence_labels" in batch:
            self.positive_labels += int(batch["next_sentence_labels"].sum())
        if "masked_lm_weights" in batch:
            used = batch["masked_lm_weights"] > 0
            shown = np.take_along_axis(batch["input_ids"], batch["masked_lm_positions"], 1)[used]
            self.predicted += int(used.sum())
            self.masked += int((shown == self._tokenizer.mask_id).sum())
            # A random token that happens to be the original one counts as kept.
            self.kept += int((shown == batch["masked_lm_ids"][used]).sum())
            # The counts of ids are of the text, in which no [MASK] occurs.
            batch = unmask(batch)
        ids = batch["input_ids"][batch["input_mask"] > 0]
        self.ids += np.bincount(ids, minlength=len(self.ids))

    def describe(self, schema: Schema, objective: str) -> list[str]:
        """List the statistics, one per line; they are 0 if there are no records."""
        return [
            self._describe_rows(schema, objective),
            self._describe_masks(schema),
            self._describe_top_tokens(),
        ]

    def _describe_rows(self, schema: Schema, objective: str) -> str:
        row_count, token_count = int(self.lengths.sum()), self._token_count()
        padding = 1 - token_count / max(row_count * schema.max_seq_length, 1)
        unk_id = self._tokenizer.unk_id
        unknown = 0.0 if unk_id is None else self.ids[unk_id] / token_count
        line = f"  padding {padding:.1%}, unknown {unknown:.2%}"
        if schema.packed:
            line += f", {self.sequences / max(row_count, 1):.2f} inputs a row"
        if schema.sentences:
            label = "random next" if objective == "next_sentence" else "swapped"
            line += f", {label} {self.positive_labels / max(self.sequences, 1):.1%}"
        return line

    def _describe_masks(self, schema: Schema) -> str:
        if not schema.max_predictions_per_seq:
            return "  not masked: to be masked in the training step (data.dynamic_masking)"
        predicted = max(self.predicted, 1)
        # `data.mlm_probability` is a share of the ordinary tokens, so special ones do not count.
        ordinary = int(np.delete(self.ids, self._tokenizer.special_ids).sum())
        random = 1 - (self.masked + self.kept) / predicted
        return (
            f"  predicted {self.predicted / max(ordinary, 1):.1%} of the tokens: [MASK] "
            f"{self.masked / predicted:.1%}, kept {self.kept / predicted:.1%}, random {random:.1%}"
        )

    def _describe_top_tokens(self) -> str:
        counts = self.ids.copy()
        counts[self._tokenizer.special_ids] = 0
        # Stable: of equally frequent ids the smaller one comes first.
        top = np.argsort(-counts, kind="stable")[:TOP_TOKENS]
        pieces = self._tokenizer.pieces(top.tolist())
        shares = counts[top] / self._token_count()
        tokens = [f"{piece} {share:.2%}" for piece, share in zip(pieces, shares, strict=True)]
        return "  top tokens: " + ", ".join(tokens)

    def _token_count(self) -> int:
        return max(int(self.ids.sum()), 1)


def _describe_split(
    folder: epath.Path, manifest: Manifest, split: str, tokenizer: Tokenizer
) -> list[str]:
    schema = manifest.schemas[split]
    totals = _Totals(schema, tokenizer)
    for info in manifest.split(split):
        shard_files.verify(folder / info.name, info, schema)
        raw = shard_files.map_records(folder / info.name, schema, info)
        for begin in range(0, info.records, BLOCK_RECORDS):
            block = np.asarray(raw[begin : begin + BLOCK_RECORDS])
            totals.add(record_format.decode(schema, block))
    row_count = int(totals.lengths.sum())
    pairs = describe_pairs(manifest, split)
    shards = manifest.split(split)
    checksums = "checksums good"
    if not all(info.sha256 for info in shards):
        checksums = "the manifest has no checksums, those of the records are good"
    return [
        f"{split}: {row_count:,} rows in {len(shards)} shards, {checksums}",
        *totals.describe(schema, manifest.settings["data"]["sentence_objective"]),
        *([f"  {pairs}"] if pairs else []),
        "  ids in a row:",
        *_histogram(totals.lengths),
    ]


def _histogram(counts: np.ndarray) -> list[str]:
    """Draw the number of rows of each length, int `[longest + 1]`, as bars of text."""
    edges = np.linspace(0, len(counts), HISTOGRAM_BARS + 1).astype(int).tolist()
    bins = list(itertools.pairwise(edges))
    sizes = [int(counts[begin:end].sum()) for begin, end in bins]
    largest = max(*sizes, 1)
    lines = []
    for (begin, end), size in zip(bins, sizes, strict=True):
        bar = "█" * round(BAR_WIDTH * size / largest)
        lines.append(f"  {begin:>5}-{end - 1:<5} {bar:<{BAR_WIDTH}} {size:,}")
    return lines


def _describe_row(batch: Batch, row: int, tokenizer: Tokenizer) -> list[str]:
    """Return a row as text: its sentence labels and pieces, and below them its masked words."""
    length = int(batch["input_mask"][row].sum())
    text = tokenizer.decode(batch["input_ids"][row, :length].tolist())
    if "next_sentence_labels" in batch:
        row_labels = batch["next_sentence_labels"][row]
        if "cls_weights" in batch:  # a packed row may have fewer inputs than labels
            row_labels = row_labels[batch["cls_weights"][row] > 0]
        text = f"(label {' '.join(map(str, row_labels))}) {text}"
    lines = [f"  {text}"]
    if "masked_lm_weights" in batch:
        used = batch["masked_lm_weights"][row] > 0
        answers = tokenizer.pieces(batch["masked_lm_ids"][row][used].tolist())
        lines.append(f"    predict: {' '.join(answers)}")
    return lines
