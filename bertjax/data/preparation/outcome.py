"""The manifest of a preparation: what its work units and shards report, added up."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.data.corpus import cleaning, sentences
from bertjax.data.corpus.work_units import NULL_DOCUMENTS
from bertjax.data.preparation import build_shard, text_losses, tokenize_corpus
from bertjax.data.preparation.build_shard import ShardReport
from bertjax.data.preparation.shard_assignment import Plan
from bertjax.data.preparation.snapshots import Snapshot
from bertjax.data.preparation.tokenize_corpus import DONE, SCRIPTS
from bertjax.data.records.manifest import SPLITS, WORK, Manifest
from bertjax.data.records.record_format import schema_of
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check


@dataclass(frozen=True)
class Made:
    """What a preparation has made, and from what."""

    config: Config
    folder: str
    unit_names: Sequence[str]
    """The names of the work units; their folders have the same names."""
    plan: Plan
    moved: Mapping[str, int] = field(default_factory=dict)
    """Documents moved to a split that the hash left with too few, by its name."""


def make_manifest(
    made: Made,
    configs: dict[str, Config],
    tokenizer: Tokenizer,
    inputs: dict[str, Any],
    taken: dict[str, Snapshot],
) -> Manifest:
    """Return the manifest of a preparation whose shards are written.

    `configs` are those of the splits, `inputs` the settings and sources, and `taken` the snapshots
    of databases. Raises `UserError` if a split has shards but no records, or nothing to mask.
    """
    data = made.config.data
    reports = [build_shard.read_report(made.folder, shard) for shard in made.plan.shards()]
    read = read_counts(made.folder, made.unit_names)
    document_count = sum(report.counts.documents for report in reports)
    # They are known only now, so enough documents at the start may be too few at the end.
    near_count = sum(report.counts.near_duplicates for report in reports)
    dropped = f", {near_count} near-duplicates dropped" if near_count else ""
    for split in SPLITS:
        records = [report.info.records for report in reports if report.info.split == split]
        check(
            # A split without shards is as asked for: nothing is held out at a fraction of 0.
            sum(records) > 0 or not records,
            where=f"split {split}, of {document_count} documents{dropped}",
            found="no instance",
            expected=f"one or more (data.validation_fraction is {data.validation_fraction})",
        )
        in_split = [report.counts for report in reports if report.info.split == split]
        text_losses.check_maskable(
            f"split {split}",
            sum(counts.tokens for counts in in_split),
            sum(counts.unknown_tokens for counts in in_split),
            made.config.tokenizer,
        )
    return Manifest(
        schemas={split: schema_of(configs[split].data, split) for split in SPLITS},
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        settings=inputs["settings"],
        sources=inputs["sources"],
        shards=tuple(report.info for report in reports),
        validation_unigram_entropy=_unigram_entropy(reports),
        counts=_with_null_rows(_count_documents(read, reports, made.moved), taken),
        snapshots={name: asdict(snapshot) for name, snapshot in taken.items()},
        scripts=_count_scripts(read),
    )


def _unigram_entropy(reports: Sequence[ShardReport]) -> float:
    """Return the entropy of the held-out documents' tokens, in nats; 0 where there are none."""
    counts = [report.counts.token_counts for report in reports if report.counts.token_counts]
    if not counts:
        counts = [[1]]  # one token that is certain
    frequencies = np.sum(counts, axis=0)
    # Without those that do not occur: 0 log 0 counts as 0, and numpy makes it NaN.
    p = frequencies[frequencies > 0] / frequencies.sum()
    return float(-(p * np.log(p)).sum())


def _count_documents(
    read: Counter[str], reports: Sequence[ShardReport], moved: Mapping[str, int]
) -> dict[str, int]:
    """Return the counts of what was read, what cleaning changed, and what each split has."""
    names = (*cleaning.COUNTED, *sentences.COUNTED, *tokenize_corpus.COUNTED)
    counts = {name: read[name] for name in names}
    # Most corpora have none.
    if read[NULL_DOCUMENTS]:
        counts[NULL_DOCUMENTS] = read[NULL_DOCUMENTS]
    counts["duplicate_documents"] = sum(report.counts.duplicates for report in reports)
    counts["near_duplicate_documents"] = sum(report.counts.near_duplicates for report in reports)
    for split in SPLITS:
        in_split = [report.counts for report in reports if report.info.split == split]
        counts[f"{split}_documents"] = sum(shard.documents for shard in in_split)
        counts[f"{split}_sentences"] = sum(shard.sentences for shard in in_split)
        counts[f"{split}_tokens"] = sum(shard.tokens for shard in in_split)
        counts[f"{split}_largest_document_tokens"] = max(
            (shard.largest for shard in in_split), default=0
        )
        counts[f"{split}_moved_documents"] = moved.get(split, 0)
        pairs: Counter[str] = Counter()
        for shard in in_split:
            pairs.update(shard.pairs)
        for name, pair_count in pairs.items():
            counts[f"{split}_{name}"] = pair_count
    return counts


def _with_null_rows(counts: dict[str, int], taken: dict[str, Snapshot]) -> dict[str, int]:
    """Return the counts with the rows that the snapshots leave out among the null documents."""
    null_rows = sum(snapshot.null_rows for snapshot in taken.values())
    # Most corpora have none.
    if not null_rows:
        return counts
    return {**counts, NULL_DOCUMENTS: counts.get(NULL_DOCUMENTS, 0) + null_rows}


def _count_scripts(read: Counter[str]) -> dict[str, dict[str, int]]:
    """Return the characters of each script in each split, the most frequent script first."""
    scripts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        prefix = SCRIPTS.format(split, "")
        found = {
            name.removeprefix(prefix): n for name, n in read.items() if name.startswith(prefix)
        }
        scripts[split] = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return scripts


def read_counts(folder: str, unit_names: Sequence[str]) -> Counter[str]:
    """Return the counts of all tokenized work units of a preparation, added up."""
    read: Counter[str] = Counter()
    for name in unit_names:
        done = epath.Path(folder) / WORK / name / DONE
        read.update(json.loads(done.read_text()))
    return read
