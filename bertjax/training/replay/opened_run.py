"""A run whose batches are to be made again, compared with what its checkpoints record."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from bertjax.config import Config, from_dict
from bertjax.config.phases.resolution import Phase, phases_of
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, mismatch
from bertjax.given_files import place_of
from bertjax.progress import Progress, silent
from bertjax.training import checkpoint, continuation, run_config
from bertjax.training.batch_source import BatchSource, Corpora, prepared_source
from bertjax.training.optimization.batch_schedule import BatchSchedule
from bertjax.training.provenance import data_record
from bertjax.training.saved_model import saved_tokenizer


class OpenedRun(NamedTuple):
    """A pretraining run with its data; its configuration is the one that it was trained with."""

    folder: epath.Path
    config: Config
    tokenizer: Tokenizer
    phases: Sequence[Phase[Config]]
    sources: Sequence[BatchSource]
    """The batches of each phase."""
    newest: epath.Path
    """The newest checkpoint, whose record the data are compared with."""
    record: Mapping[str, Any]
    facts: Mapping[str, Any]
    """What is known of the data as they are now."""

    def corpora(self, phase: Phase[Config]) -> Corpora:
        """Return the records of a phase, and their order."""
        corpora = self.sources[phase.number - 1].corpora
        assert corpora is not None  # `prepared_source` made it
        return corpora


def opened_run(run_dir: epath.PathLike, progress: Progress = silent) -> OpenedRun:
    """Open a pretraining run and its prepared folders.

    Raises `UserError` for a run whose batches do not follow from its configuration (fine-tuned,
    distilled, of an adaptive batch), for one without a record of its data, and where
    `config.json`, the tokenizer or the folders are not those that it was trained with.
    """
    folder = place_of(run_dir)
    config = run_config.read_run_config(folder)
    _check_kind(folder, config)
    newest = checkpoint.newest_checkpoint(folder)
    if newest is None:
        raise mismatch(
            where=str(folder),
            found="no checkpoint",
            expected="one or more, which record what the run was trained on",
        )
    record = checkpoint.read_meta(newest)
    check(
        data_record.is_known(record),
        where=str(newest),
        found="no record of its data",
        expected="a run of bertjax train",
    )
    recorded = record["config"]
    before = continuation.kept_rules(recorded, from_dict(Config, recorded, f"{newest}/meta"))
    # A file that was changed by hand would give other batches.
    continuation.check_unchanged(folder / run_config.FILE, before, config, int(newest.name))
    tokenizer = saved_tokenizer(folder, newest)
    source = prepared_source(config, tokenizer, trains=False, progress=progress)
    sources = source.of_phases or (source,)
    return OpenedRun(
        folder, config, tokenizer, phases_of(config), sources, newest, record, source.facts
    )


def _check_kind(folder: epath.Path, config: Config) -> None:
    check(
        not config.finetune.tasks,
        where=str(folder),
        found="a fine-tuned run",
        expected="one of bertjax train: only its batches follow from seed and step",
    )
    check(
        not config.distill.teacher,
        where=str(folder),
        found="a distilled run",
        expected="one of bertjax train without a teacher",
    )
    check(
        config.train.batch_size_schedule != "adaptive",
        where=f"{folder}: train.batch_size_schedule",
        found="adaptive, whose batches depend on measured noise",
        expected="constant or ramp",
    )


def check_data(run: OpenedRun, step: int) -> None:
    """Raise `UserError` unless the data are those with which the update to `step` was made."""
    record = run.record
    # A run that went on with other data records those of before, and the step of the change.
    for change in record.get(data_record.CHANGES) or []:
        if step <= change["step"]:
            record = change
            break
    changed = data_record.difference(record, run.facts)
    if changed is not None:
        raise mismatch(
            where=f"{run.folder}: data, {changed.name}",
            found=changed.found,
            expected=f"{changed.recorded}, on which step {step} was trained",
        )


class UpdateBatches(NamedTuple):
    """The batches of an update: those of the steps from `begin` to `end` - 1."""

    begin: int
    end: int


def updates_of(phase: Phase[Config]) -> list[UpdateBatches] | None:
    """Return the updates of a phase whose batch grows; None where each update is one step."""
    train = phase.config.train
    if train.batch_size_schedule == "constant":
        return None
    schedule = BatchSchedule(train, begin=phase.growth.begin, end=phase.end)
    spans, step = [], phase.begin
    while step < phase.end:
        end = step + schedule.batches_at(step)
        spans.append(UpdateBatches(step, end))
        step = end
    return spans
