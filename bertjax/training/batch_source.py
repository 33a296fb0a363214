"""Where a run's batches come from: any iterator of numpy dicts, and prepared shards as one such."""

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
from bertjax.data.records.manifest import read_manifest
from bertjax.data.tokenizers.tokenizer import Tokenizer, mask_vocabulary
from bertjax.masking.selection import Vocabulary
from bertjax.training.evaluate import heldout_examiner
from bertjax.types import Batch


@dataclass(frozen=True)
class Feed:
    """The batches of a run, their arrays named as in `bertjax.data.records.record_format`."""

    train: Callable[[int, np.ndarray], Iterator[Batch]]
    """Given the step to start at and this process's rows of the global batch
    (`hosts.process_rows`): its rows, step after step.
    """
    examine: Callable[[Config, Mesh], Callable[[Any], dict[str, float]]] | None = None
    """Given configuration and mesh, what finds the held-out figures of parameters; None where
    nothing is held out. `score` among them, more being better, or else `mlm_loss` tells the best
    checkpoint. Of several processes all get the same.
    """
    vocabulary: Vocabulary | None = None
    """What the step needs to mask; None where the batches are masked."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What a checkpoint's `meta` says of the data: `tokenizer_fingerprint`, `manifest_sha256`."""
    inspect: Callable[[Batch], list[str]] = lambda batch: []
    """What looks odd in a batch, a line each."""


def prepared_feed(config: Config, tokenizer: Tokenizer) -> Feed:
    """The feed of `config.data.prepared_dir` or `mixture`, checked against the configuration and
    the tokenizer.

    Raises `UserError` when a folder holds no shards, or shards that do not fit.
    """
    folders = corpora(config)

    def opened(split: str) -> list[pipeline.Records]:
        places = folders.values()
        return [
            pipeline.open_split(config, folder, split, tokenizer.fingerprint) for folder in places
        ]

    train, heldout = opened("train"), dict(zip(folders, opened("validation"), strict=True))
    manifests = [read_manifest(folder) for folder in folders.values()]
    whole = all(manifests)
    digests = (
        "".join((folder / "manifest.json").read_text() for folder in folders.values())
        if whole
        else ""
    )
    first = manifests[0]
    return Feed(
        train=lambda start, rows: pipeline.train_batches(
            train, config, tokenizer.starts_word, start, row_indices=rows
        ),
        examine=partial(
            heldout_examiner,
            {name: partial(_heldout, config, records) for name, records in heldout.items()},
            unigram_entropy=first.validation_unigram_entropy
            if first and len(manifests) == 1
            else None,
        ),
        vocabulary=mask_vocabulary(tokenizer) if config.data.dynamic_masking else None,
        facts={
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "manifest_sha256": hashlib.sha256(digests.encode()).hexdigest() if whole else None,
        },
        inspect=partial(inspect_batch, config=config),
    )


def _heldout(
    config: Config, records: pipeline.Records, rows: np.ndarray, most: int
) -> Iterator[Batch]:
    return pipeline.eval_batches(records, config, row_indices=rows, max_batches=most)


def corpora(config: Config) -> dict[str, epath.Path]:
    """The prepared folders of a run by name: those of `data.mixture`, else `data.prepared_dir` as
    `all`.
    """
    entries = [entry.partition("=") for entry in config.data.mixture] or [
        ("all", "=", config.data.prepared_dir)
    ]
    return {name: epath.Path(folder) for name, _, folder in entries}
