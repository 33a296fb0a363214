"""The source of a run's batches: any iterator of numpy dicts, prepared shards for example."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from etils import epath
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.data import pipeline
from bertjax.data.batch_checks import inspect_batch
from bertjax.data.records.manifest import Manifest, read_manifest
from bertjax.data.tokenizers.tokenizer import Tokenizer, mask_vocabulary
from bertjax.masking.selection import Vocabulary
from bertjax.training.evaluate import Evaluator, heldout_evaluator
from bertjax.types import Batch


def _no_warnings(batch: Batch) -> list[str]:
    return []


@dataclass(frozen=True)
class BatchSource:
    """The batches of a run, their arrays named as in `bertjax.data.records.record_format`."""

    train: Callable[[int, np.ndarray], Iterator[Batch]]
    """Returns the rows of one global batch after another that belong to this process.

    Called with the step to start at, and the indices of the rows (`hosts.process_row_indices`).
    """
    make_evaluator: Callable[[Config, Mesh], Evaluator] | None = None
    """Returns the function from parameters to held-out metrics; None where nothing is held out.

    The best checkpoint is the one with the highest `score` among these metrics, or else the lowest
    `mlm_loss`. In a run of several processes all get the same metrics.
    """
    vocabulary: Vocabulary | None = None
    """The vocabulary for masking inside the step; None where batches come masked."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the data for `meta`: `tokenizer_fingerprint` and `manifest_sha256`."""
    inspect: Callable[[Batch], list[str]] = _no_warnings
    """Returns a line for each thing that looks wrong in a batch."""


def prepared_source(config: Config, tokenizer: Tokenizer) -> BatchSource:
    """Return the batch source of `config.data.prepared_dir`, or of the folders of `data.mixture`.

    Raises `UserError` where a folder holds no shards, or shards that do not fit the configuration
    or the tokenizer.
    """
    folders = corpora(config)
    fingerprint = tokenizer.fingerprint
    train = [
        pipeline.open_split(config, folder, "train", fingerprint) for folder in folders.values()
    ]
    heldout = {}
    for name, folder in folders.items():
        records = pipeline.open_split(config, folder, "validation", fingerprint)
        heldout[name] = partial(_heldout_batches, config, records)
    manifests = [read_manifest(folder) for folder in folders.values()]

    def train_batches(start: int, row_indices: np.ndarray) -> Iterator[Batch]:
        return pipeline.train_batches(
            train, config, tokenizer.starts_word, start, row_indices=row_indices
        )

    return BatchSource(
        train=train_batches,
        make_evaluator=partial(
            heldout_evaluator, heldout, unigram_entropy=_unigram_entropy(manifests)
        ),
        vocabulary=mask_vocabulary(tokenizer) if config.data.dynamic_masking else None,
        facts={
            "tokenizer_fingerprint": fingerprint,
            # Files of another BERT data script have no manifest.
            "manifest_sha256": _digest(list(folders.values())) if all(manifests) else None,
        },
        inspect=partial(inspect_batch, config=config),
    )


def _heldout_batches(
    config: Config, records: pipeline.Records, row_indices: np.ndarray, max_batches: int
) -> Iterator[Batch]:
    return pipeline.eval_batches(records, config, row_indices=row_indices, max_batches=max_batches)


def _unigram_entropy(manifests: list[Manifest | None]) -> float | None:
    """Return the entropy of the held-out tokens, known for a single corpus alone."""
    first = manifests[0]
    if first is None or len(manifests) > 1:
        return None
    return first.validation_unigram_entropy


def _digest(folders: list[epath.Path]) -> str:
    text = "".join((folder / "manifest.json").read_text() for folder in folders)
    return hashlib.sha256(text.encode()).hexdigest()


def corpora(config: Config) -> dict[str, epath.Path]:
    """Return the prepared folders of a run by name: those of `data.mixture`, each NAME=FOLDER.

    Without a mixture it is `data.prepared_dir`, with the name `all`.
    """
    if not config.data.mixture:
        return {"all": epath.Path(config.data.prepared_dir)}
    folders = {}
    for entry in config.data.mixture:
        # At the first = alone: a folder's path may have one too.
        name, _, folder = entry.partition("=")
        folders[name] = epath.Path(folder)
    return folders
