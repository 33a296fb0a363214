"""A prepared folder, verified and described."""

import hashlib
import itertools

import numpy as np
from etils import epath

from bertjax.data import shards
from bertjax.data.manifest import Manifest, read_manifest
from bertjax.data.reader import OurShards
from bertjax.data.shards import Batch, ShardInfo
from bertjax.data.tokenizer import Tokenizer, load_tokenizer
from bertjax.errors import UserError, check

BLOCK = 8192
BARS, BAR_WIDTH = 10, 40


def summarise(folder: epath.PathLike, *, examples: int = 3) -> str:
    """Statistics of each split, and `examples` instances as text, after every shard's checksum was verified.

    Raises `UserError` for a folder that `bertjax prepare` did not finish, and naming a shard
    that is missing or damaged.
    """
    path = epath.Path(folder)
    manifest = read_manifest(path)
    if manifest is None:
        raise UserError(f"{path}: found no manifest.json, expected a folder that bertjax prepare finished")
    tokenizer = load_tokenizer(path / "tokenizer")
    counted = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in manifest.counts.items())
    lines = [f"prepared: {path}", f"vocabulary: {manifest.vocab_size:,}", f"counts: {counted}"]
    for split in ("train", "validation"):
        if manifest.split(split):
            lines += ["", *_describe_split(path, manifest, split, tokenizer)]
    split = "validation" if manifest.split("validation") else "train"
    lines += ["", f"first instances of {split}:"]
    records = OurShards(path, manifest, split)
    batch = records.read(np.arange(min(examples, len(records))))
    lines += [_as_text(batch, row, tokenizer) for row in range(len(batch["input_ids"]))]
    return "\n".join(lines)


def verify(path: epath.Path, info: ShardInfo) -> None:
    """Raise `UserError` unless the shard is there with the manifest's checksum."""
    check(path.exists(), str(path), "no file", f"the shard of {info.records} records that the manifest names")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    check(digest.hexdigest() == info.sha256, str(path), "other bytes than were written", "the manifest's checksum")


def _describe_split(folder: epath.Path, manifest: Manifest, split: str, tokenizer: Tokenizer) -> list[str]:
    schema, sums = manifest.schema, dict.fromkeys(("real", "unknown", "predicted", "masked", "kept", "random_next"), 0)
    lengths = np.zeros(schema.max_seq_length + 1, np.int64)
    for info in manifest.split(split):
        verify(folder / info.name, info)
        raw = shards.map_records(folder / info.name, schema, info)
        for begin in range(0, info.records, BLOCK):
            batch = shards.decode(schema, np.asarray(raw[begin : begin + BLOCK]))
            lengths += np.bincount(batch["input_mask"].sum(axis=1), minlength=len(lengths))
            weights = batch["masked_lm_weights"] > 0
            shown = np.take_along_axis(batch["input_ids"], batch["masked_lm_positions"], 1)[weights]
            sums["real"] += int(batch["input_mask"].sum())
            sums["unknown"] += int((batch["input_ids"] == tokenizer.unk_id).sum())
            sums["predicted"] += int(weights.sum())
            sums["masked"] += int((shown == tokenizer.mask_id).sum())
            sums["kept"] += int((shown == batch["masked_lm_ids"][weights]).sum())
            sums["random_next"] += int(batch["next_sentence_labels"].sum())
    rows = int(lengths.sum())
    predicted, real = max(sums["predicted"], 1), max(sums["real"], 1)
    other = 1 - (sums["masked"] + sums["kept"]) / predicted
    return [
        f"{split}: {rows:,} instances in {len(manifest.split(split))} shards, checksums good",
        f"  padding {1 - real / max(rows * schema.max_seq_length, 1):.1%}, unknown {sums['unknown'] / real:.2%}, "
        f"random next {sums['random_next'] / max(rows, 1):.1%}",
        f"  predicted {sums['predicted'] / max(real - 3 * rows, 1):.1%} of the tokens: "
        f"[MASK] {sums['masked'] / predicted:.1%}, kept {sums['kept'] / predicted:.1%}, random {other:.1%}",
        "  lengths:",
        *_histogram(lengths),
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
    text = tokenizer.decode(batch["input_ids"][row, :real].tolist())
    label = "random next" if batch["next_sentence_labels"][row, 0] else "true next"
    used = batch["masked_lm_weights"][row] > 0
    answers = " ".join(tokenizer.pieces(batch["masked_lm_ids"][row][used].tolist()))
    return f"  ({label}) {text}\n    predict: {answers}"
