"""The manifest of a preparation: what its work units and shards report, added up."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import Config
from bertjax.data.corpus import cleaning, sentences
from bertjax.data.corpus.work_units import NULL_DOCUMENTS
from bertjax.data.preparation import text_losses, tokenize_corpus
from bertjax.data.preparation.build_shard import ShardReport
from bertjax.data.preparation.snapshots import Snapshot
from bertjax.data.preparation.tokenize_corpus import SCRIPTS
from bertjax.data.records.manifest import SPLITS, Manifest
from bertjax.data.records.record_format import schema_of
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check


class Outcome(NamedTuple):
    """What the stages of a preparation report."""

    read: Counter[str]
    """Counts of all tokenized work units, added up (`unit_files.read_counts`)."""
    shards: Sequence[ShardReport]
    moved: Mapping[str, int]
    """Documents moved to a split that the hash left with too few, by its name."""
    snapshots: Mapping[str, Snapshot]
    """Snapshots of databases, by source."""

    def in_split(self, split: str) -> list[ShardReport]:
        """List the reports of a split's shards."""
        return [report for report in self.shards if report.info.split == split]


def make_manifest(
    config: Config,
    configs: Mapping[str, Config],
    tokenizer: Tokenizer,
    inputs: Mapping[str, Any],
    outcome: Outcome,
) -> Manifest:
    """Return the manifest of a preparation whose shards are written.

    `configs` are the configurations of the splits, and `inputs` the settings and sources. Raises
    `UserError` if a split has shards but no records, or nothing to mask.
    """
    reports = outcome.shards
    document_count = sum(report.counts.documents for report in reports)
    # They are known only now, so enough documents at the start may be too few at the end.
    near_count = sum(report.counts.near_duplicates for report in reports)
    dropped = f", {near_count} near-duplicates dropped" if near_count else ""
    for split in SPLITS:
        in_split = outcome.in_split(split)
        check(
            # A split without shards is as asked for: nothing is held out at a fraction of 0.
            not in_split or sum(report.info.records for report in in_split) > 0,
            where=f"split {split}, of {document_count} documents{dropped}",
            found="no instance",
            expected=f"one or more (data.validation_fraction is {config.data.validation_fraction})",
        )
        text_losses.check_maskable(
            f"split {split}",
            sum(report.counts.tokens for report in in_split),
            sum(report.counts.unknown_tokens for report in in_split),
            config.tokenizer,
        )
    return Manifest(
        schemas={split: schema_of(configs[split].data, split) for split in SPLITS},
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        settings=inputs["settings"],
        sources=inputs["sources"],
        shards=tuple(report.info for report in reports),
        validation_unigram_entropy=_unigram_entropy(reports),
        counts=_count_documents(outcome),
        snapshots={name: asdict(snapshot) for name, snapshot in outcome.snapshots.items()},
        scripts=_count_scripts(outcome.read),
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


def _count_documents(outcome: Outcome) -> dict[str, int]:
    """Return the counts of what was read, what cleaning changed, and what each split has."""
    read, reports = outcome.read, outcome.shards
    names = (*cleaning.COUNTED, *sentences.COUNTED, *tokenize_corpus.COUNTED)
    counts = {name: read[name] for name in names}
    # A snapshot leaves out the rows with NULL.
    null_rows = sum(snapshot.null_rows for snapshot in outcome.snapshots.values())
    null_documents = read[NULL_DOCUMENTS] + null_rows
    # Most corpora have none.
    if null_documents:
        counts[NULL_DOCUMENTS] = null_documents
    counts["duplicate_documents"] = sum(report.counts.duplicates for report in reports)
    counts["near_duplicate_documents"] = sum(report.counts.near_duplicates for report in reports)
    for split in SPLITS:
        in_split = [report.counts for report in outcome.in_split(split)]
        counts[f"{split}_documents"] = sum(shard.documents for shard in in_split)
        counts[f"{split}_sentences"] = sum(shard.sentences for shard in in_split)
        counts[f"{split}_tokens"] = sum(shard.tokens for shard in in_split)
        counts[f"{split}_largest_document_tokens"] = max(
            (shard.largest for shard in in_split), default=0
        )
        counts[f"{split}_moved_documents"] = outcome.moved.get(split, 0)
        pairs: Counter[str] = Counter()
        for shard in in_split:
            pairs.update(shard.pairs)
        for name, pair_count in pairs.items():
            counts[f"{split}_{name}"] = pair_count
    return counts


def _count_scripts(read: Counter[str]) -> dict[str, dict[str, int]]:
    """Return the characters of each script in each split, the most frequent script first."""
    scripts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        prefix = SCRIPTS.format(split, "")
        in_split = {
            name.removeprefix(prefix): n for name, n in read.items() if name.startswith(prefix)
        }
        scripts[split] = dict(sorted(in_split.items(), key=lambda item: (-item[1], item[0])))
    return scripts
