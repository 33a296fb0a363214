"""The bound between held-out and training documents, and what a corpus of few documents needs.

The hash of each document alone decides its split: it is held out if its split word is below a bound
(`shard_assignment.py`). Of `n` documents the hash holds none out with probability (1 - fraction)^n:
36 % for 50 documents at a fraction of 0.02, 2e-9 for 1,000. Where it leaves a split with too few
documents, the bound moves to the documents nearest to it, as far as necessary.

The bound follows from the set of documents alone, not from their order. Once the corpus has grown
until the hash suffices, the documents that were moved are back in their own split. Before that no
training document becomes held out, unless the training split is the one that had too few.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from etils import epath

from bertjax.config import DataConfig
from bertjax.data.corpus.work_units import WorkUnit, formats_of
from bertjax.data.preparation.shard_assignment import bound_of
from bertjax.data.preparation.splits.count import Extremes, RunItems, count, needed_documents
from bertjax.data.records.manifest import WORK
from bertjax.errors import check, mismatch
from bertjax.json_values import record
from bertjax.storage import read_json, write_whole

FILE = "bound.json"
# About 500 tokens: several rows of the usual lengths, all of one stretch.
STRETCH_CHARACTERS = 2000
"""Size of stretches that is proposed where a corpus has too few documents."""
# A sentence or two.
MIN_STRETCH_CHARACTERS = 100
"""Size of stretches below which none is proposed."""
STRETCHES = 12
"""Number of stretches that a small corpus gives at the size proposed."""


@dataclass(frozen=True)
class Bound:
    """The bound between the splits of a preparation."""

    value: int
    """Documents whose split word is below it are held out."""
    moved: dict[str, int] = field(default_factory=dict)
    """Number of documents moved to a split, by its name, because the hash left it with too few."""


def choose_bound(
    data: DataConfig, folder: str, work_units: Sequence[WorkUnit], run: RunItems
) -> Bound:
    """Return the bound for a corpus, and keep it in `.work/bound.json` for later starts.

    Raises `UserError` if the corpus has too few documents or cannot be read.
    """
    path = epath.Path(folder) / WORK / FILE
    if path.exists():
        return record(Bound, read_json(path), str(path))
    check(
        data.validation_fraction < 1,
        where="data.validation_fraction",
        found=data.validation_fraction,
        expected="less than 1, so that there are training documents",
    )
    extremes = count(data, folder, work_units, run)
    _check_enough(data, work_units, extremes)
    needed = needed_documents(data)
    # A held-out document alone is written without pairs.
    needed["validation"] = min(needed["validation"], len(extremes.lowest) - needed["train"])
    bound = moved_bound(bound_of(data.validation_fraction), extremes, needed)
    write_whole(path, json.dumps(asdict(bound)).encode())
    return bound


def moved_bound(bound: int, extremes: Extremes, needed: dict[str, int]) -> Bound:
    """Move the bound so that each split has the documents it needs, if it does not have them.

    There must be as many documents as both splits need.
    """
    counts = extremes.counts(bound)
    missing = {split: needed[split] - counts[split] for split in counts}
    # Never both: one split then has all documents, and there are enough for both.
    if missing["validation"] > 0:
        last_heldout = extremes.lowest[needed["validation"] - 1]
        return Bound(last_heldout + 1, {"validation": missing["validation"]})
    if missing["train"] > 0:
        return Bound(extremes.highest[-needed["train"]], {"train": missing["train"]})
    return Bound(bound)


def _check_enough(data: DataConfig, work_units: Sequence[WorkUnit], extremes: Extremes) -> None:
    """Raise `UserError` unless there are documents to train on and, if asked for, to hold out."""
    # Exact where it is too small.
    documents = len(extremes.lowest)
    if not documents:
        length = data.min_document_characters
        raise mismatch(
            where="data.corpus",
            found=f"no document of {length} characters or more" if length else "no text",
            expected="one document or more",
        )
    for_training = needed_documents(data)["train"]
    least = f"{for_training} to train on"
    if for_training > 1:
        least += ", since a random next sentence comes from another document"
    if data.validation_fraction:
        least += ", and 1 to hold out"
    check(
        documents >= for_training + (data.validation_fraction > 0),
        where="data.corpus",
        found=f"{documents} document{'s' if documents > 1 else ''} (copies count once)",
        expected="; or ".join([least, *_ways_out(data, work_units, extremes)]),
    )


def _ways_out(data: DataConfig, work_units: Sequence[WorkUnit], extremes: Extremes) -> list[str]:
    """List the settings with which so few documents are enough."""
    documents = len(extremes.lowest)
    for_training = needed_documents(data)["train"]
    ways = []
    if data.validation_fraction and documents >= for_training:
        ways.append("data.validation_fraction 0")
    if for_training > 1:
        alone = "data.sentence_objective sentence_order or none"
        # Without a random B a document is enough to train on, but not for both splits.
        if data.validation_fraction and documents == 1:
            alone += " with data.validation_fraction 0"
        ways.append(alone)
    size = min(STRETCH_CHARACTERS, extremes.characters // STRETCHES)
    if size >= MIN_STRETCH_CHARACTERS:
        ways.append(f"data.split_documents {size}, which cuts long documents")
    # In the other formats a blank line does not end a document.
    if "bert" in formats_of(work_units, data):
        ways.append("a blank line between documents of plain text")
    return ways
