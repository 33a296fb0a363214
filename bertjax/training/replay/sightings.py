"""The steps of a run that saw a sentence."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.config.phases.resolution import Phase
from bertjax.data.pipeline import Records
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, excerpt, mismatch
from bertjax.masking.static import unmask
from bertjax.progress import Progress, silent
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.provenance import data_record
from bertjax.training.replay.opened_run import (
    OpenedRun,
    check_data,
    opened_run,
    updates_of,
)

BLOCK_RECORDS = 8192
"""Records that are read at once."""


class Sighting(NamedTuple):
    """A row of a batch that has the sentence."""

    step: int
    """The step after the update that saw it, as in `metrics.jsonl`."""
    phase: int
    corpus: str
    record: int
    """Number of the record in its corpus."""


class Searched(NamedTuple):
    """A corpus that was searched, as a phase reads it."""

    phase: int
    corpus: str
    records: tuple[int, ...]
    """Numbers of the records that have the sentence."""
    size: int
    """Number of all its records."""
    full: int
    """Number of records without padding: a sentence may have been cut at their ends."""


class Sightings(NamedTuple):
    """Where a run saw a sentence."""

    pieces: list[str]
    """The pieces of the sentence."""
    searched: list[Searched]
    seen: list[Sighting]
    """By step, of the steps up to `until`."""
    until: int
    """The last step of the run so far."""


def find_steps(run_dir: epath.PathLike, sentence: str, *, progress: Progress = silent) -> Sightings:
    """Return the steps of a pretraining run whose rows have the sentence, in every epoch and phase.

    A row has it if the pieces of the sentence stand in the row in one stretch, before masking. All
    records of the run are read once; their order then gives the steps. A sentence that the end of a
    row cuts is not found (`Searched.full`).

    Raises `UserError` as `replay` does, and for a sentence that the vocabulary does not have.

    >>> import bertjax
    >>> found = bertjax.find_steps("runs/tiny", "the cat")
    >>> found.pieces
    ['the', 'cat']
    >>> found.until
    2
    """
    run = opened_run(run_dir, progress)
    changes = run.record.get(data_record.CHANGES) or []
    if changes:
        raise mismatch(
            where=str(run.folder),
            found=f"a run that went on with other data at step {changes[0]['step']}",
            expected="one with the same data in all steps",
        )
    until = _until(run)
    check_data(run, until)
    needles = _needles(run.tokenizer, sentence)
    known: dict[str, tuple[np.ndarray, int]] = {}
    searched, seen = [], []
    for phase in run.phases:
        corpora = run.corpora(phase)
        for index, (name, records) in enumerate(zip(corpora.names, corpora.records, strict=True)):
            # Phases may share a corpus, which is then read once.
            digest = records.digest()
            if digest not in known:
                known[digest] = _search(records, needles, progress)
            having, full = known[digest]
            numbers = tuple(having.tolist())
            searched.append(Searched(phase.number, name, numbers, len(records), full))
            steps, found = corpora.order.batches_with(index, having, phase.end)
            for step, record in zip(_after(phase, steps), found.tolist(), strict=True):
                seen.append(Sighting(step, phase.number, name, record))
    seen = sorted(each for each in seen if each.step <= until)
    return Sightings(run.tokenizer.pieces(needles[0].tolist()), searched, seen, until)


def _until(run: OpenedRun) -> int:
    """Return the last step that is logged or has a checkpoint."""
    return max([int(run.newest.name), *(entry["step"] for entry in read_entries(run.folder))])


def _needles(tokenizer: Tokenizer, sentence: str) -> list[np.ndarray]:
    """Return the ids of the sentence: after a space it may have other pieces than at a beginning.

    Raises `UserError` where it has none, or where a piece is the unknown one, which stands for any
    other text too.
    """
    ids, offsets = tokenizer.encode_batch([sentence, f" {sentence}"])
    alone, after_space = ids[: offsets[1]], ids[offsets[1] :]
    check(
        len(alone) > 0,
        where="--find",
        found=excerpt(sentence),
        expected="a text with one piece or more",
    )
    check(
        tokenizer.unk_id is None or tokenizer.unk_id not in alone,
        where="--find",
        found=f"{excerpt(sentence)}, with a piece that is not in the vocabulary",
        expected="text that the tokenizer of the run knows",
    )
    if np.array_equal(alone, after_space):
        return [alone]
    return [alone, after_space]


def _search(
    records: Records, needles: Sequence[np.ndarray], progress: Progress
) -> tuple[np.ndarray, int]:
    """Return the numbers of the records that have one of the needles, and that of full records."""
    found, full = [np.empty(0, np.int64)], 0
    for begin in range(0, len(records), BLOCK_RECORDS):
        numbers = np.arange(begin, min(begin + BLOCK_RECORDS, len(records)))
        batch = records.read(numbers)
        if "masked_lm_ids" in batch:
            batch = unmask(batch)
        real = batch["input_mask"] > 0
        full += int(np.count_nonzero(real.all(axis=1)))
        # No piece has the id -1, so padding is never part of a stretch.
        ids = np.where(real, batch["input_ids"], -1)
        has_one = np.zeros(len(ids), bool)
        for needle in needles:
            has_one |= rows_with(ids, needle)
        found.append(numbers[has_one])
        progress("find", int(numbers[-1]) + 1, len(records))
    return np.concatenate(found), full


def rows_with(ids: np.ndarray, needle: np.ndarray) -> np.ndarray:
    """Return which rows of `ids`, `[B, L]`, have the ids `needle`, `[n]`, in one stretch."""
    places = ids.shape[1] - len(needle) + 1
    if places <= 0:
        return np.zeros(len(ids), bool)
    matches = np.ones((len(ids), places), bool)
    for offset, wanted in enumerate(needle):
        matches &= ids[:, offset : offset + places] == wanted
    return np.asarray(matches.any(axis=1))


def _after(phase: Phase[Config], steps: np.ndarray) -> list[int]:
    """Return, of batches of a phase, the step after the update that takes each."""
    spans = updates_of(phase)
    if spans is None:
        return (steps + 1).tolist()
    ends = np.array([span.end for span in spans])
    return ends[np.searchsorted(ends, steps, side="right")].tolist()
