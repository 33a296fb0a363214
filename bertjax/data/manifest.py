"""`manifest.json`: what a prepared folder holds, and what it was made with."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from etils import epath

from bertjax.data.shards import Schema, ShardInfo, removed_on_failure
from bertjax.errors import UserError, check, disk_errors

FILE = "manifest.json"
VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """A prepared folder; written last, so that a folder with a manifest is whole."""

    schema: Schema
    tokenizer_fingerprint: str
    vocab_size: int
    settings: dict[str, Any]
    """The configuration's fields that the shards' bytes depend on."""
    sources: dict[str, str]
    """Fingerprint of each source of the corpus."""
    shards: tuple[ShardInfo, ...]
    validation_unigram_entropy: float
    """Entropy of the held-out documents' tokens, in nats."""
    counts: dict[str, int]
    """Documents, sentences and tokens by split, and duplicate documents dropped."""

    def split(self, name: str) -> tuple[ShardInfo, ...]:
        """The shards of `train` or `validation`."""
        return tuple(shard for shard in self.shards if shard.split == name)


def write_manifest(folder: epath.Path, manifest: Manifest) -> None:
    """Write the manifest, whole or not at all; `UserError` naming it when the disk refuses."""
    path, unfinished = folder / FILE, folder / f"{FILE}.unfinished"
    with disk_errors(path), removed_on_failure(unfinished):
        unfinished.write_text(json.dumps({"version": VERSION} | dataclasses.asdict(manifest), indent=2) + "\n")
        unfinished.replace(path)


def read_manifest(folder: epath.Path) -> Manifest | None:
    """The folder's manifest, None where it has none; `UserError` when it is broken or of another version."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        check(values.pop("version") == VERSION, str(path), "another version", f"version {VERSION}")
        values["schema"] = Schema(**values["schema"])
        values["shards"] = tuple(ShardInfo(**shard) for shard in values["shards"])
        return Manifest(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read as a manifest ({type(error).__name__}: {error})") from error
