"""A branch of a run: a new run from a kept checkpoint, with other later phases."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from bertjax.config import Config, from_dict, to_dict
from bertjax.config.phases.resolution import phase_before, phases_of
from bertjax.errors import check, disk_errors, mismatch
from bertjax.given_files import place_of
from bertjax.progress import Progress, silent
from bertjax.storage import write_whole
from bertjax.storage.output_record import request_digest
from bertjax.storage.outputs import folder_written_whole
from bertjax.training import checkpoint, run_config
from bertjax.training.batch_source import prepared_source
from bertjax.training.integrity.record import META, with_own_digest
from bertjax.training.integrity.restoring import saved_shapes
from bertjax.training.logs.metrics_log import FILE as METRICS
from bertjax.training.logs.metrics_log import entry_lines, read_entries
from bertjax.training.optimization.plan import learning_rates
from bertjax.training.phases.branching import branched
from bertjax.training.provenance import data_record
from bertjax.training.saved_model import TOKENIZER, saved_tokenizer

BRANCHED_FROM = "branched_from"
"""Field of `meta` with the run and the step that a branch began with."""


class Branch(NamedTuple):
    """A new run that goes on from a step of another one."""

    run_dir: epath.Path
    config: Config
    checkpoint: epath.Path


def branch(
    run_dir: epath.PathLike,
    step: int,
    new_run_dir: epath.PathLike,
    phases: Sequence[str] = (),
    *,
    decay: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Branch:
    """Make the new run `new_run_dir` of the checkpoint at `step`, with other later phases.

    `phases` are texts as in `Config.phases`. With `decay`, a phase is added to them that lets the
    learning rate fall from where it is at `step`: `{"tokens": "50B"}` or `{"steps": "1000"}`, and
    `"shape"`, a schedule (sqrt by default). Trained, the new run equals, bit for bit, one that has
    its configuration from the start. Raises `UserError`, and writes nothing, for a step without a
    checkpoint, for phases or data that cannot be, and if the new folder has other files.

    >>> import bertjax
    >>> later = ["steps=2 optimizer.schedule=constant"]
    >>> made = bertjax.branch("runs/tiny", 2, "runs/longer", later)
    >>> made.config.train.steps
    4
    """
    source, target = place_of(run_dir), place_of(new_run_dir)
    folder = checkpoint.kept_checkpoint(source, step)
    meta = checkpoint.read_meta(folder)
    check(
        any(name.startswith("opt_state") for name in saved_shapes(folder)),
        where=str(folder),
        found="parameters alone",
        expected="an optimizer's state too (bertjax train --init-from takes parameters)",
    )
    config = from_dict(Config, meta["config"], str(folder))
    later = list(phases)
    if decay:
        later.append(_decay_phase(config, step, decay))
    new = branched(config, step, later)
    _check_same_rates(config, new, step)
    tokenizer = saved_tokenizer(source, folder)
    facts = prepared_source(new, tokenizer, progress=progress).facts
    _check_same_data(folder, config, step, meta, facts)
    request = request_digest(
        "branch",
        source=checkpoint.version_of_checkpoint(folder),
        config=to_dict(new),
        data=facts[data_record.DATA],
    )
    with folder_written_whole(target, "branch", request, last=checkpoint.FOLDER) as part:
        if part is not None:
            _write(part, source, folder, new, {**meta, **facts})
    return Branch(target, new, target / checkpoint.FOLDER / str(step))


def _decay_phase(config: Config, step: int, decay: Mapping[str, str]) -> str:
    """Return the text of a phase in which the learning rate falls from where it is."""
    phases = phases_of(config)
    optimizer = phase_before(phases, step).config.optimizer
    (length,) = (f"{name}={decay[name]}" for name in ("tokens", "steps") if name in decay)
    words = [length, f"optimizer.schedule={decay.get('shape', 'sqrt')}"]
    rate = learning_rates(config, step + 1)[step]
    check(
        rate > 0,
        where=f"learning rate of step {step}",
        found=rate,
        expected="a number above 0, from which it falls",
    )
    if rate != np.float32(optimizer.peak_learning_rate):
        words.append(f"optimizer.peak_learning_rate={float(rate)!r}")
    return " ".join(words)


def _check_same_rates(config: Config, new: Config, step: int) -> None:
    """Raise `UserError` where the steps that were made would have had other learning rates."""
    before, now = learning_rates(config, step), learning_rates(new, step)
    different = np.flatnonzero(before != now)
    if not len(different):
        return
    first = different[0]
    raise mismatch(
        where=f"phases: learning rate of step {first}",
        found=now[first],
        expected=f"{before[first]}, as in the run",
    )


def _check_same_data(
    folder: epath.Path, config: Config, step: int, meta: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Raise `UserError` where the phases that were trained would have had other data."""
    if step == 0:
        return
    recorded = meta.get(data_record.DATA) or {}
    made = phase_before(phases_of(config), step).number
    for name, digest in facts[data_record.DATA].items():
        if data_record.phase_of_name(name) <= made:
            check(
                recorded.get(name) == digest,
                where=f"{folder}: data, {name}",
                found=data_record.short_digest(digest),
                expected=f"{data_record.short_digest(recorded.get(name))}, on which it was trained",
            )


def _write(
    part: epath.Path, source: epath.Path, folder: epath.Path, new: Config, meta: dict[str, Any]
) -> None:
    """Write the files of `branch` into the empty folder `part`."""
    step = int(folder.name)
    run_config.write_run_config(part, new)
    _copy(source / TOKENIZER, part / TOKENIZER)
    entries = [entry for entry in read_entries(source) if entry["step"] <= step]
    if entries:
        write_whole(part / METRICS, b"".join(entry_lines(entries)))
    saved = part / checkpoint.FOLDER / str(step)
    _copy(folder, saved)
    values = {
        **meta,
        "config": to_dict(new),
        checkpoint.PHASE: phase_before(phases_of(new), step).number,
        BRANCHED_FROM: {"run": str(source), "step": step},
    }
    with disk_errors(saved):
        saved.joinpath(*META).write_text(json.dumps(with_own_digest(values)))


def _copy(source: epath.Path, target: epath.Path) -> None:
    """Copy a folder with all that is in it; raise `UserError` where the disk is full, say."""
    with disk_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            if path.is_dir():
                _copy(path, target / path.name)
            else:
                path.copy(target / path.name)
