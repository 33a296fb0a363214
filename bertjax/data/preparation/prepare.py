"""Preparation of a corpus: train a vocabulary, tokenize the work units, write the shards.

Before that, databases become files (`snapshots.py`).

The shard of a document depends only on its content, so the output does not depend on the order of
the files or the number of workers. Finished work is kept: if preparation was interrupted and is
started again, it makes only what is missing.
"""

import contextlib
import dataclasses
import os
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from bertjax.config import Config
from bertjax.config.sql_source import without_password
from bertjax.data.corpus import sources as corpus
from bertjax.data.corpus.work_units import WorkUnit, make_work_units
from bertjax.data.preparation import (
    build_shard,
    near_duplicates,
    snapshots,
    text_losses,
    vocabulary_sample,
)
from bertjax.data.preparation.claim import (
    check_same_vocabulary,
    claim,
    discarded_if_refused,
    read_finished,
    released_if_refused,
    settings_of,
)
from bertjax.data.preparation.inputs.document_pool import TokenizedCorpus, forget_pool
from bertjax.data.preparation.inputs.instances import check_can_make_pairs
from bertjax.data.preparation.inputs.pair_survey import config_of_split
from bertjax.data.preparation.outcome import Outcome, make_manifest
from bertjax.data.preparation.runners import Runner, RunStage, WorkItem, local_runner
from bertjax.data.preparation.shard_assignment import Plan, plan_shards
from bertjax.data.preparation.splits.bound import choose_bound
from bertjax.data.preparation.tokenize_corpus import (
    TOKENIZER,
    TOKENS,
    load,
    tokenize_unit,
)
from bertjax.data.preparation.unit_files import read_counts, remove_unfinished_units
from bertjax.data.records import tfds_metadata
from bertjax.data.records.manifest import SPLITS, WORK, Manifest, write_manifest
from bertjax.data.records.record_format import MAX_IDS, MAX_POSITIONS
from bertjax.data.row_layout import RowLayout
from bertjax.data.tokenizers.export_check import check_export
from bertjax.data.tokenizers.tokenizer import (
    Tokenizer,
    load_tokenizer,
    open_vocabulary,
    train_tokenizer,
)
from bertjax.errors import UserError, check, require_package
from bertjax.given_files import place_of
from bertjax.progress import Progress, silent
from bertjax.storage import FolderLock, LockError, check_locks, folder_lock, remove_unfinished


@dataclass(frozen=True)
class _Preparation:
    """A preparation in progress."""

    config: Config
    folder: epath.Path
    work_units: Sequence[WorkUnit]
    plan: Plan
    run: RunStage
    progress: Progress
    token: str
    """That of the folder's lock."""
    moved: dict[str, int] = dataclasses.field(default_factory=dict)
    """Documents moved to a split that the hash left with too few, by its name."""

    @property
    def folder_path(self) -> str:
        """The folder as a string, for work items, because these are pickled."""
        return os.fspath(self.folder)

    @property
    def unit_names(self) -> list[str]:
        """The names of the work units; their folders have the same names."""
        return [work_unit.name for work_unit in self.work_units]

    def run_stage(self, stage: str, items: Sequence[WorkItem]) -> None:
        """Run the items, and return when all are done."""
        locked = [item._replace(folder=self.folder_path, token=self.token) for item in items]
        with discarded_if_refused(self.folder):
            self.run(stage, locked, self.progress)


def prepare(
    config: Config,
    output_dir: epath.PathLike,
    *,
    progress: Progress = silent,
    runner: Runner | None = None,
) -> Manifest:
    """Make the shards for `config.data` and `config.tokenizer` in `output_dir`, if missing.

    `runner` runs the work; the default is `config.data.workers` processes on this machine. A
    finished folder is not changed. Raises `UserError` if the corpus cannot be read, if the folder
    holds another preparation, if another process is preparing it, or if files cannot be written.
    """
    folder = place_of(output_dir)
    sources = corpus.find_sources(config.data)
    inputs = {
        "settings": settings_of(config),
        "sources": {source.name: corpus.fingerprint(source) for source in sources},
    }
    finished = read_finished(config, folder, inputs)
    if finished is not None:
        _remove_work(folder)
        return finished
    check(
        config.data.max_seq_length <= MAX_POSITIONS,
        where="data.max_seq_length",
        found=config.data.max_seq_length,
        expected=f"at most {MAX_POSITIONS:,}, the positions that a record can have",
    )
    # The package is needed only for the metadata at the end; an error now saves hours.
    require_package("tensorflow_datasets", extra="data")
    with folder_lock(folder, "prepare") as lock:
        # Another process may have finished it since.
        finished = read_finished(config, folder, inputs)
        if finished is None:
            finished = _prepare(config, folder, sources, inputs, lock, progress, runner)
    return finished


def _remove_work(folder: epath.Path) -> None:
    """Remove what a finished folder still has if the process was killed after the last step."""
    # If another process has the lock, that one does it.
    if (folder / WORK).exists():
        with contextlib.suppress(LockError), folder_lock(folder, "prepare"):
            _remove(folder / WORK)


def _prepare(
    config: Config,
    folder: epath.Path,
    sources: Sequence[corpus.Source],
    inputs: dict[str, Any],
    lock: FolderLock,
    progress: Progress,
    runner: Runner | None,
) -> Manifest:
    """Do the work of `prepare`, of which this process has the folder's lock."""
    if (folder / WORK).exists():
        remove_unfinished(folder)
    claim(folder, inputs)
    # This process may have prepared another corpus in a folder of the same name.
    load.cache_clear()
    with released_if_refused(folder):
        files, taken = snapshots.take_snapshots(config, folder, sources, progress)
    # A runner may write its work items to a disk. All of them read files, and need no password.
    config = _without_passwords(config)
    work_units = make_work_units(files)
    plan = plan_shards(config, _text_bytes(work_units))

    # `cpu_count` is None where the system does not tell it.
    with runner or local_runner(config.data.workers or os.cpu_count() or 1) as run:
        preparation = _with_bound(
            _Preparation(config, folder, work_units, plan, run, progress, lock.token)
        )
        tokenizer = _make_tokenizer(preparation)
        read = _tokenize(preparation)
        configs = _make_shards(preparation, tokenizer.layout, read[TOKENS])

    reports = [
        build_shard.read_whole(preparation.folder_path, shard)
        for shard in preparation.plan.shards()
    ]
    outcome = Outcome(read, reports, preparation.moved, taken)
    with discarded_if_refused(folder):
        manifest = make_manifest(config, configs, tokenizer, inputs, outcome)
    progress("describe", 0, 0)
    tfds_metadata.write(folder, manifest)
    # Everything but the clean-up is done now: a folder with a manifest is finished.
    write_manifest(folder, manifest)
    _remove(folder / WORK)
    return manifest


def _with_bound(preparation: _Preparation) -> _Preparation:
    """Return the preparation with the bound between its splits, as its documents require it."""
    with released_if_refused(preparation.folder):
        bound = choose_bound(
            preparation.config.data,
            preparation.folder_path,
            preparation.work_units,
            preparation.run_stage,
        )
    plan = dataclasses.replace(preparation.plan, heldout_bound=bound.value)
    return dataclasses.replace(preparation, plan=plan, moved=bound.moved)


def _make_tokenizer(preparation: _Preparation) -> Tokenizer:
    """Load the folder's tokenizer; if there is none, open the user's vocabulary or train one."""
    config, folder = preparation.config, preparation.folder
    saved = folder / TOKENIZER
    # It is written last, so the folder is complete.
    if (saved / "tokenizer_config.json").exists():
        tokenizer = load_tokenizer(saved)
        check_same_vocabulary(config, folder, tokenizer.fingerprint)
        return tokenizer
    vocab_file = config.tokenizer.vocab_file
    sample = [] if vocab_file else _take_sample(preparation)
    # Any error: here the folder has a sample at most, which costs little.
    with discarded_if_refused(folder, UserError):
        if vocab_file:
            tokenizer = open_vocabulary(config.tokenizer)
        else:
            tokenizer = train_tokenizer(config.tokenizer, sample)
        check(
            tokenizer.vocab_size <= MAX_IDS,
            where=vocab_file or "tokenizer.vocab_size",
            found=f"{tokenizer.vocab_size:,} entries",
            expected=f"at most {MAX_IDS:,}, the ids that a record can have",
        )
        check_can_make_pairs(config.data, tokenizer.layout)
        # Without `transformers`, whose import takes as long as a small corpus does: both read the
        # file tokenizer.json, and export compares with both.
        check_export(tokenizer, vocab_file or saved, with_transformers=False)
    tokenizer.save(saved)
    # Only now: a kill during the training must not cost the sample.
    _remove(folder / WORK / vocabulary_sample.FOLDER)
    return tokenizer


def _take_sample(preparation: _Preparation) -> list[str]:
    """Take the sample of the corpus that a tokenizer is trained on."""
    config, plan, folder = preparation.config, preparation.plan, preparation.folder_path
    corpus_bytes = _text_bytes(preparation.work_units)
    items = []
    for work_unit in preparation.work_units:
        arguments = (config, folder, plan, work_unit, corpus_bytes)
        items.append(WorkItem(vocabulary_sample.take, arguments))
    preparation.run_stage("sample", items)
    preparation.progress("train tokenizer", 0, 0)
    return vocabulary_sample.read(
        preparation.folder, preparation.unit_names, config.tokenizer.train_characters
    )


def _tokenize(preparation: _Preparation) -> Counter[str]:
    """Tokenize the work units; return the counts of all, added up."""
    config, plan, folder = preparation.config, preparation.plan, preparation.folder_path
    items = [
        WorkItem(tokenize_unit, (config, folder, plan, work_unit))
        for work_unit in preparation.work_units
    ]
    remove_unfinished_units(preparation.folder, preparation.unit_names)
    preparation.run_stage("tokenize", items)
    read = read_counts(folder, preparation.unit_names)
    with discarded_if_refused(preparation.folder):
        text_losses.report(read, config.tokenizer)
    return read


def _make_shards(preparation: _Preparation, layout: RowLayout, tokens: int) -> dict[str, Config]:
    """Find near duplicates if configured, and write the shards of a corpus of so many tokens.

    `layout` is the tokenizer's. Returns the configuration by which the rows of each split were
    made.
    """
    config, plan, folder = preparation.config, preparation.plan, preparation.folder_path
    names = preparation.unit_names
    # Before the shards, which leave out what it finds: it needs the sketches of all units.
    threshold = config.data.near_duplicate_threshold
    if threshold:
        item = WorkItem(near_duplicates.find_near_duplicates, (folder, names, threshold))
        preparation.run_stage("near duplicates", [item])
    corpus = TokenizedCorpus(
        folder,
        tuple(names),
        layout,
        plan.pooled(tokens),
        near_duplicates_dropped=threshold > 0,
        preparation=uuid.uuid4().hex,
    )
    with discarded_if_refused(preparation.folder):
        configs = {
            split: config_of_split(split, config, corpus, preparation.work_units)
            for split in SPLITS
        }
    items = []
    for shard in plan.shards():
        items.append(WorkItem(build_shard.build, (configs[shard.split], corpus, shard)))
    preparation.run_stage("write", items)
    forget_pool()  # where the work was done in this process
    return configs


def _without_passwords(config: Config) -> Config:
    names = tuple(without_password(name) for name in config.data.corpus)
    return config.replace(data={"corpus": names})


def _text_bytes(work_units: Sequence[WorkUnit]) -> int:
    """Return the estimated bytes of text of the corpus."""
    return sum(work_unit.size for work_unit in work_units)


def _remove(folder: epath.Path) -> None:
    check_locks(folder)
    if folder.exists():
        folder.rmtree()
