"""`manifest.json`: the contents of a prepared folder, and the settings it was made with."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from etils import epath

from bertjax.data.records.record_format import Schema, ShardInfo
from bertjax.errors import check, one_line
from bertjax.given_files import read_json_value
from bertjax.json_values import record, shown
from bertjax.storage import is_plain_name, write_whole

FILE = "manifest.json"
WORK = ".work"
"""Subfolder with the intermediate results of a preparation that is not finished."""
SPLITS = ("train", "validation")
# Version 1 had one schema for both splits; training rows for dynamic masks need another.
VERSION = 2
_ONE_SPLIT = f"one of {', '.join(SPLITS)}"


@dataclass(frozen=True)
class Manifest:
    """A prepared folder; written last, so that a folder with a manifest is complete."""

    schemas: dict[str, Schema]
    """The features of a record of each split."""
    tokenizer_fingerprint: str
    vocab_size: int
    settings: dict[str, Any]
    """Fields of the configuration that change the bytes of the shards."""
    sources: dict[str, str]
    """Fingerprint of each source of the corpus."""
    shards: tuple[ShardInfo, ...]
    validation_unigram_entropy: float
    """Entropy of the held-out documents' tokens, in nats."""
    counts: dict[str, int]
    """Documents, sentences, tokens and pairs (`pair_counts`) of each split, and how many documents
    each step of cleaning changed.
    """
    scripts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Characters of each script in each split, duplicates included; empty in older folders."""
    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each `sql:` source the rows, bytes and SHA-256 of the snapshot that was read."""

    def describe_counts(self) -> str:
        """Return a line of text with all counts."""
        counts = [f"{name.replace('_', ' ')} {count:,}" for name, count in self.counts.items()]
        return f"counts: {', '.join(counts)}"

    def describe_snapshots(self) -> list[str]:
        """Return a line of text for each snapshot."""
        lines = []
        for name, facts in self.snapshots.items():
            lines.append(
                f"snapshot of {one_line(name)}: {facts['rows']:,} rows, {facts['null_rows']:,} with"
                f" NULL left out, {facts['text_bytes']:,} bytes of text, SHA-256 {facts['sha256']}"
            )
        return lines

    def split(self, name: str) -> tuple[ShardInfo, ...]:
        """Return the shards of a split, `train` or `validation`."""
        return tuple(shard for shard in self.shards if shard.split == name)


def write_manifest(folder: epath.Path, manifest: Manifest) -> None:
    """Write the manifest, whole or not at all; `UserError` naming it when the disk refuses."""
    content = {"version": VERSION} | asdict(manifest)
    write_whole(folder / FILE, (json.dumps(content, indent=2) + "\n").encode())


def read_manifest(folder: epath.Path) -> Manifest | None:
    """Read the folder's manifest; return None if it has none.

    Raises `UserError` if the file is broken or of another version.
    """
    path = folder / FILE
    if not path.exists():
        return None
    values = read_json_value(path, "a manifest")
    # The version first: another one has other fields.
    check(
        isinstance(values, dict) and values.pop("version", None) == VERSION,
        where=str(path),
        found="another version",
        expected=f"version {VERSION}",
    )
    shards = values.get("shards")
    for shard in shards if isinstance(shards, list) else []:
        if isinstance(shard, dict):
            # A manifest of another program may have no checksums.
            shard.setdefault("sha256", "")
    manifest = record(Manifest, values, str(path))
    _check_values(manifest, str(path))
    return manifest


def _check_values(manifest: Manifest, where: str) -> None:
    """Raise `UserError` for a manifest that no preparation writes, though its types are right."""
    numbers: dict[str, float] = {"vocab_size": manifest.vocab_size, **manifest.counts}
    numbers["validation_unigram_entropy"] = manifest.validation_unigram_entropy
    for shard in manifest.shards:
        place = f"{where}: shard {shown(shard.name)}"
        check(
            is_plain_name(shard.name),
            where=f"{where}: shards",
            found=f"the name {shown(shard.name)}",
            expected="the name of a file in this folder",
        )
        check(shard.split in SPLITS, where=place, found=shown(shard.split), expected=_ONE_SPLIT)
        for name in ("records", "bytes", "max_id"):
            numbers[f"shard {shard.name}: {name}"] = getattr(shard, name)
    for split in SPLITS:
        check(split in manifest.schemas, where=where, found=f"no schema of {split}", expected="one")
        schema = asdict(manifest.schemas[split])
        numbers |= {f"schemas: {split}: {name}": value for name, value in schema.items()}
    for name, number in numbers.items():
        check(number >= 0, where=f"{where}: {name}", found=number, expected="0 or more")
