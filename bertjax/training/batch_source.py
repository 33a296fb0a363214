"""The source of a run's batches: any iterator of numpy dicts, for example prepared shards."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.config.data import mixture_folders
from bertjax.config.phases.resolution import Phase, phases_of
from bertjax.data import pipeline
from bertjax.data.batch_checks import inspect_batch
from bertjax.data.order import Reading
from bertjax.data.phase_order import Part, readings
from bertjax.data.records.foreign_files import foreign_paths
from bertjax.data.records.foreign_records import ForeignRecords
from bertjax.data.records.manifest import Manifest, read_manifest
from bertjax.data.records.reader import PreparedRecords
from bertjax.data.row_order import RowOrder
from bertjax.data.tokenizers.tokenizer import Tokenizer, mask_vocabulary
from bertjax.given_files import place_of, read_file
from bertjax.masking.selection import Vocabulary
from bertjax.progress import Progress, silent
from bertjax.training.evaluate import (
    Evaluator,
    HeldoutBatches,
    detection_evaluator,
    heldout_evaluator,
)
from bertjax.training.provenance import data_record
from bertjax.types import Batch


def _no_warnings(batch: Batch) -> list[str]:
    return []


class Corpora(NamedTuple):
    """The training records of a run, or of one of its phases, and their order."""

    names: tuple[str, ...]
    """Names of the corpora, as in `data.mixture`."""
    records: tuple[pipeline.Records, ...]
    order: RowOrder


@dataclass(frozen=True)
class BatchSource:
    """The batches of a run; array names are those of `bertjax.data.records.record_format`."""

    train: Callable[[int, np.ndarray], Iterator[Batch]]
    """Function that yields this process's rows of one global batch after another.

    Its arguments are the first step and the indices of the rows (`hosts.process_row_indices`).
    """
    make_evaluator: Callable[[Config, Mesh], Evaluator] | None = None
    """Function that makes the held-out evaluator; None if there is no held-out data.

    The evaluator maps parameters to metrics. The best checkpoint is the one with the highest
    `score` among the metrics or, without a `score`, the lowest `mlm_loss`. All processes of a run
    get the same metrics.
    """
    heldout: HeldoutBatches = field(default_factory=dict)
    """The held-out batches that the evaluator reads, by the name of the corpus."""
    vocabulary: Vocabulary | None = None
    """The vocabulary for masking inside the step; None if the batches are already masked."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the data for `meta`; a run that goes on must have the same (`data_record`)."""
    notes: tuple[str, ...] = ()
    """Lines for the log when the run starts: which files of another script each split has."""
    inspect: Callable[[Batch], list[str]] = _no_warnings
    """Function that returns one line for each thing that looks wrong in a batch."""
    corpora: Corpora | None = None
    """The records that `train` reads; None where it reads no prepared folders."""
    of_phases: tuple["BatchSource", ...] = ()
    """In a run with phases the source of each; `facts` are then those of all."""


class _Opened(NamedTuple):
    """The prepared folders of a run, or of one of its phases, checked against its configuration."""

    config: Config
    folders: Mapping[str, epath.Path]
    train: list[pipeline.Records]
    heldout: dict[str, pipeline.Records]
    manifests: list[Manifest | None]
    digests: list[str]
    """A digest of each corpus. For files of another script it reads of all their records."""


def prepared_source(
    config: Config, tokenizer: Tokenizer, *, trains: bool = True, progress: Progress = silent
) -> BatchSource:
    """Return the batch source of `config.data.prepared_dir`, or of the folders of `data.mixture`.

    A folder prepared with `data.validation_fraction` 0 has no held-out records. If no folder has
    any, the source has no evaluator. Whole shards are compared with their manifests; where the
    source is not for training (`trains`), those of the training split are compared when the first
    batch of them is read. In a run with phases the source has one of each phase (`of_phases`).

    Raises `UserError` if a folder has no shards, or if its shards do not fit the configuration or
    the tokenizer, or are not those of its manifest.
    """
    phases = phases_of(config)
    opened = [_open(phase.config, tokenizer.fingerprint) for phase in phases]
    # Last, because this may take minutes the first time.
    for each in opened:
        for records in [*(each.train if trains else ()), *each.heldout.values()]:
            if isinstance(records, PreparedRecords):
                records.check_shards(progress)
    begins = readings([_part(*each) for each in zip(phases, opened, strict=True)])
    sources = []
    for phase, each, reading in zip(phases, opened, begins, strict=True):
        end = pipeline.NO_END if phase is phases[-1] else phase.end
        sources.append(_source(each, tokenizer, reading, end))
    if not config.phases:
        return sources[0]
    facts = data_record.of_phases([source.facts for source in sources])
    # Two phases may read the same folder.
    notes = dict.fromkeys(chain.from_iterable(source.notes for source in sources))
    return dataclasses.replace(
        sources[0], facts=facts, notes=tuple(notes), of_phases=tuple(sources)
    )


def _open(config: Config, fingerprint: str) -> _Opened:
    """Open the folders of a run without phases, or of one phase; raise `UserError`."""
    folders = corpora(config)
    train = [
        pipeline.open_split(config, folder, "train", fingerprint) for folder in folders.values()
    ]
    manifests = [read_manifest(folder) for folder in folders.values()]
    heldout = {}
    for (name, folder), manifest in zip(folders.items(), manifests, strict=True):
        if _has_heldout(config, folder, manifest):
            heldout[name] = pipeline.open_split(config, folder, "validation", fingerprint)
    digests = []
    for name, records in zip(folders, train, strict=True):
        held = heldout[name].digest() if name in heldout else ""
        digests.append(_sha256(records.digest() + held))
    return _Opened(config, folders, train, heldout, manifests, digests)


def _part(phase: Phase[Config], opened: _Opened) -> Part:
    """Return a phase as the order of its rows needs it."""
    rows = (phase.end - phase.begin) * phase.config.train.batch_size
    quotas = pipeline.mixture_quotas(phase.config, [len(records) for records in opened.train])
    return Part(phase.begin, rows, tuple(opened.digests), tuple(quotas.tolist()))


def _source(opened: _Opened, tokenizer: Tokenizer, reading: Reading, end: int) -> BatchSource:
    """Return the source of a run without phases, or of one that is read from `reading` to `end`."""
    config, folders = opened.config, opened.folders
    vocabulary = mask_vocabulary(tokenizer) if config.data.dynamic_masking else None
    notes: list[str] = []
    for folder, records in zip(folders.values(), opened.train, strict=True):
        notes += _notes(folder, "train", records)
    for name, records in opened.heldout.items():
        notes += _notes(folders[name], "validation", records)
    heldout = {
        name: partial(_heldout_batches, config, records) for name, records in opened.heldout.items()
    }
    make_evaluator = None
    if heldout:
        unigram_entropy = _unigram_entropy(opened.manifests)
        evaluator = detection_evaluator if config.replaced.is_used else heldout_evaluator
        make_evaluator = partial(evaluator, heldout, unigram_entropy=unigram_entropy)
    else:
        notes.append("no held-out records: no evaluations, and the newest checkpoints are kept")

    def train_batches(start: int, row_indices: np.ndarray) -> Iterator[Batch]:
        return pipeline.train_batches(
            opened.train,
            config,
            tokenizer.starts_word,
            start,
            row_indices=row_indices,
            vocabulary=vocabulary,
            reading=reading,
            end_step=end,
        )

    return BatchSource(
        train=train_batches,
        make_evaluator=make_evaluator,
        heldout=heldout,
        vocabulary=vocabulary,
        facts={
            data_record.FINGERPRINT: tokenizer.fingerprint,
            data_record.DATA: dict(zip(folders, opened.digests, strict=True)),
            # Files of another BERT data script have no manifest.
            data_record.MANIFEST: _digest(list(folders.values()))
            if all(opened.manifests)
            else None,
        },
        notes=tuple(notes),
        inspect=partial(inspect_batch, config=config),
        corpora=Corpora(
            tuple(folders),
            tuple(opened.train),
            pipeline.row_order(opened.train, config, reading),
        ),
    )


def _has_heldout(config: Config, folder: epath.Path, manifest: Manifest | None) -> bool:
    """Return False where held-out records were left out on purpose, by a fraction of 0."""
    if manifest is not None:
        # Only then: a preparation that holds out documents and writes no record of them fails.
        return bool(manifest.split("validation"))
    # Files of another script do not tell why none is held out, so the run's own setting does.
    return config.data.validation_fraction > 0 or bool(foreign_paths(folder, "validation"))


def _notes(folder: epath.Path, split: str, records: pipeline.Records) -> list[str]:
    """Return what the log says of a split: its files, if their names alone tell that they are."""
    if not isinstance(records, ForeignRecords):
        return []
    return [f"{folder}: {records.describe(folder, split)}"]


def _heldout_batches(
    config: Config, records: pipeline.Records, row_indices: np.ndarray, max_batches: int
) -> Iterator[Batch]:
    return pipeline.eval_batches(records, config, row_indices=row_indices, max_batches=max_batches)


def _unigram_entropy(manifests: list[Manifest | None]) -> float | None:
    """Return the entropy of the held-out tokens; it is known only if there is a single corpus."""
    first = manifests[0]
    if first is None or len(manifests) > 1:
        return None
    return first.validation_unigram_entropy


def _digest(folders: list[epath.Path]) -> str:
    content = b"".join(read_file(folder / "manifest.json", "a manifest") for folder in folders)
    return hashlib.sha256(content).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def corpora(config: Config) -> dict[str, epath.Path]:
    """Return the prepared folders of a run by name: those of `data.mixture`, each NAME=FOLDER.

    Without a mixture it is `data.prepared_dir`, with the name `all`.
    """
    if not config.data.mixture:
        return {data_record.WHOLE: place_of(config.data.prepared_dir)}
    folders = mixture_folders(config.data.mixture)
    return {name: place_of(folder) for name, folder in folders.items()}


def interleave(batches: list[Batch]) -> Batch:
    """Return one batch that takes one row from each batch in turn.

    Each device then gets exactly its rows of the single batches. So a process that has read its
    rows of each batch has its rows of the whole batch.
    """
    if len(batches) == 1:
        return batches[0]
    joined = {}
    for name in batches[0]:
        stacked = np.stack([batch[name] for batch in batches], axis=1)
        joined[name] = stacked.reshape(-1, *stacked.shape[2:])
    return joined
