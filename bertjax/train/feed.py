"""Where a run's batches come from: any iterator of numpy dicts, and prepared shards as one such."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.data import pipeline
from bertjax.data.manifest import read_manifest

NumpyBatch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Feed:
    """The batches of a run, their arrays named as in `bertjax.data.shards`."""

    train: Callable[[int, slice], Iterator[NumpyBatch]]
    """Given the step to start at and this host's rows of the global batch: its rows, step after step."""
    heldout: Callable[[slice, int], Iterable[NumpyBatch]] | None = None
    """Given this host's rows and a number of batches (0: all): the held-out rows, the last batch
    filled up with rows of `cls_weights` 0."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What a checkpoint's `meta` says of the data: `tokenizer_fingerprint`, `manifest_sha256`."""
    unigram_entropy: float | None = None
    """Entropy of the held-out tokens in nats: the loss of a model that knows frequencies only."""


def prepared_feed(config: Config, tokenizer_fingerprint: str) -> Feed:
    """The feed of `config.data.prepared_dir`, checked against the configuration and the tokenizer.

    Raises `UserError` when the folder holds no shards, or shards that do not fit.
    """
    folder = epath.Path(config.data.prepared_dir)
    train = pipeline.open_split(config, "train", tokenizer_fingerprint)
    heldout = pipeline.open_split(config, "validation", tokenizer_fingerprint)
    manifest = read_manifest(folder)
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() if manifest else None
    return Feed(
        train=lambda start, rows: pipeline.train_batches(train, config, start, rows=rows),
        heldout=lambda rows, most: pipeline.eval_batches(heldout, config, rows=rows, max_batches=most),
        facts={"tokenizer_fingerprint": tokenizer_fingerprint, "manifest_sha256": digest},
        unigram_entropy=manifest.validation_unigram_entropy if manifest else None,
    )
