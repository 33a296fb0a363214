"""A prepared folder, verified and described."""

import hashlib
import itertools

import numpy as np
from etils import epath

from bertjax.data.records import record_format as shards
from bertjax.data.records.manifest import Manifest, read_manifest
from bertjax.data.records.reader import OurShards
from bertjax.data.records.record_format import Schema, ShardInfo
from bertjax.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from bertjax.errors import UserError, check
from bertjax.masking.static import unmask
from bertjax.types import Batch

BLOCK = 8192
BARS, BAR_WIDTH, TOP = 10, 40, 10


def summarise(folder: epath.PathLike, *, examples: int = 3) -> str:
    """Statistics of each split, and `examples` instances as text, after every shard's checksum was
    verified.

    Raises `UserError` for a folder that `bertjax prepare` did not finish, and naming a shard
    that is missing or damaged.
    """
    path = epath.Path(folder)
    manifest = read_manifest(path)
    if manifest is None:
        raise UserError(
            f"{path}: found no manifest.json, expected a folder that bertjax prepare finished"
        )
    tokenizer = load_tokenizer(path / "tokenizer")
    counted = ", ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in manifest.counts.items()
    )
    lines = [f"prepared: {path}", f"vocabulary: {manifest.vocab_size:,}", f"counts: {counted}"]
    for split in ("train", "validation"):
        if manifest.split(split):
            lines += ["", *_describe_split(path, manifest, split, tokenizer)]
    split = "validation" if manifest.split("validation") else "train"
    lines += ["", f"first rows of {split}:"]
    records = OurShards(path, manifest, split)
    batch = records.read(np.arange(min(examples, len(records))))
    lines += [_as_text(batch, row, tokenizer) for row in range(len(batch["input_ids"]))]
    return "\n".join(lines)


def verify(path: epath.Path, info: ShardInfo) -> None:
    """Raise `UserError` unless the shard is there with the manifest's checksum."""
    check(
        path.exists(),
        where=str(path),
        found="no file",
        expected=f"the shard of {info.records} records that the manifest names",
    )
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    check(
        digest.hexdigest() == info.sha256,
        where=str(path),
        found="other bytes than were written",
        expected="the manifest's checksum",
    )


class _Totals:
    """What is counted over the records of a split."""

    def __init__(self, schema: Schema, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.lengths = np.zeros(schema.max_seq_length + 1, np.int64)
        self.ids = np.zeros(tokenizer.vocab_size, np.int64)
        self.sequences = self.predicted = self.masked = self.kept = self.random_next = 0

    def add(self, batch: Batch) -> None:
        """Count a block of records."""
        self.lengths += np.bincount(batch["input_mask"].sum(axis=1), minlength=len(self.lengths))
        if "pack_ids" in batch:
            self.sequences += int(batch["pack_ids"].max(axis=1, initial=0).sum())
        else:
            self.sequences += len(batch["input_ids"])
        if "next_sentence_labels" in batch:
            self.random_next += int(batch["next_sentence_labels"].sum())
        if "masked_lm_weights" in batch:
            weights = batch["masked_lm_weights"] > 0
            shown = np.take_along_axis(batch["input_ids"], batch["masked_lm_positions"], 1)[weights]
            self.predicted += int(weights.sum())
            self.masked += int((shown == self._tokenizer.mask_id).sum())
            self.kept += int((shown == batch["masked_lm_ids"][weights]).sum())
            batch = unmask(batch)
        self.ids += np.bincount(
            batch["input_ids"][batch["input_mask"] > 0], minlength=len(self.ids)
        )

    def describe(self, schema: Schema, objective: str) -> list[str]:
        """The figures, a line each."""
        rows, real = int(self.lengths.sum()), max(int(self.ids.sum()), 1)
        ordinary = np.delete(self.ids, self._tokenizer.special_ids).sum()
        lines = [f"  padding {1 - real / max(rows * schema.max_seq_length, 1):.1%}, "
                 f"unknown {self.ids[self._tokenizer.unk_id] / real:.2%}"]  # fmt: skip
        if schema.packed:
            lines[0] += f", {self.sequences / max(rows, 1):.2f} inputs a row"
        if schema.sentences:
            label = "random next" if objective == "next_sentence" else "swapped"
            lines[0] += f", {label} {self.random_next / max(self.sequences, 1):.1%}"
        if schema.max_predictions_per_seq:
            predicted = max(self.predicted, 1)
            other = 1 - (self.masked + self.kept) / predicted
            lines.append(
                f"  predicted {self.predicted / max(ordinary, 1):.1%} of the tokens: [MASK] "
                f"{self.masked / predicted:.1%}, kept {self.kept / predicted:.1%}, random {other:.1%}"
            )
        else:
            lines.append("  not masked: to be masked in the training step (data.dynamic_masking)")
        counts = self.ids.copy()
        counts[self._tokenizer.special_ids] = 0
        top = np.argsort(-counts, kind="stable")[:TOP]
        named = zip(self._tokenizer.pieces(top.tolist()), counts[top], strict=True)
        lines.append(
            "  top tokens: " + ", ".join(f"{piece} {count / real:.2%}" for piece, count in named)
        )
        return lines


def _describe_split(
    folder: epath.Path, manifest: Manifest, split: str, tokenizer: Tokenizer
) -> list[str]:
    schema = manifest.schemas[split]
    totals = _Totals(schema, tokenizer)
    for info in manifest.split(split):
        verify(folder / info.name, info)
        raw = shards.map_records(folder / info.name, schema, info)
        for begin in range(0, info.records, BLOCK):
            totals.add(shards.decode(schema, np.asarray(raw[begin : begin + BLOCK])))
    rows = int(totals.lengths.sum())
    return [
        f"{split}: {rows:,} rows in {len(manifest.split(split))} shards, checksums good",
        *totals.describe(schema, manifest.settings["data"]["sentence_objective"]),
        "  ids in a row:",
        *_histogram(totals.lengths),
    ]


def _histogram(lengths: np.ndarray) -> list[str]:
    edges = np.linspace(0, len(lengths), BARS + 1).astype(int)
    sizes = [int(lengths[a:b].sum()) for a, b in itertools.pairwise(edges)]
    most = max(*sizes, 1)
    return [
        f"  {a:>5}-{b - 1:<5} {'█' * round(BAR_WIDTH * size / most):<{BAR_WIDTH}} {size:,}"
        for a, b, size in zip(edges, edges[1:], sizes, strict=False)
    ]


def _as_text(batch: Batch, row: int, tokenizer: Tokenizer) -> str:
    real = int(batch["input_mask"][row].sum())
    said = tokenizer.decode(batch["input_ids"][row, :real].tolist())
    if "next_sentence_labels" in batch:
        weights = batch.get("cls_weights", np.ones_like(batch["next_sentence_labels"]))
        labels = batch["next_sentence_labels"][row][weights[row] > 0]
        said = f"(label {' '.join(map(str, labels))}) {said}"
    if "masked_lm_weights" not in batch:
        return f"  {said}"
    used = batch["masked_lm_weights"][row] > 0
    answers = " ".join(tokenizer.pieces(batch["masked_lm_ids"][row][used].tolist()))
    return f"  {said}\n    predict: {answers}"
