"""`manifest.json`: the contents of a prepared folder, and the settings it was made with."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from bertjax.data.records.record_format import Schema, ShardInfo
from bertjax.errors import UserError, check, one_line
from bertjax.storage import is_plain_name, write_whole

FILE = "manifest.json"
WORK = ".work"
"""Subfolder with the intermediate results of a preparation that is not finished."""
SPLITS = ("train", "validation")
# Version 1 had one schema for both splits; training rows for dynamic masks need another.
VERSION = 2


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
    content = {"version": VERSION} | dataclasses.asdict(manifest)
    write_whole(folder / FILE, (json.dumps(content, indent=2) + "\n").encode())


def read_manifest(folder: epath.Path) -> Manifest | None:
    """Read the folder's manifest; return None if it has none.

    Raises `UserError` if the file is broken or of another version.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        check(
            values.pop("version") == VERSION,
            where=str(path),
            found="another version",
            expected=f"version {VERSION}",
        )
        values["schemas"] = {split: Schema(**schema) for split, schema in values["schemas"].items()}
        # A manifest of another program may have no checksums.
        values["shards"] = tuple(ShardInfo(**{"sha256": "", **each}) for each in values["shards"])
        for shard in values["shards"]:
            check(
                is_plain_name(shard.name),
                where=f"{path}: shards",
                found=f"the name {shard.name!r}",
                expected="the name of a file in this folder",
            )
        return Manifest(**values)
    # Any unexpected content of the file causes one of these errors.
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read as a manifest ({type(error).__name__}: {error})"
        ) from error
