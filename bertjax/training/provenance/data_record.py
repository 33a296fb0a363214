"""The data that a checkpoint was trained on, as its `meta` records them, against those of now.

The record consists of digests. It counts whatever else is in the run folder: who deletes
`config.json` does not get another run.
"""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from bertjax.config import Config, to_dict
from bertjax.config.data import mixture_folders
from bertjax.errors import check
from bertjax.training import checkpoint

log = logging.getLogger("bertjax")

FINGERPRINT = "tokenizer_fingerprint"
"""Field of `meta` with the fingerprint of the tokenizer."""
DATA = "data_sha256"
"""Field of `meta` with a digest of each corpus, or of each task's validation examples, by name."""
ROWS = "training_rows_sha256"
"""Field of `meta` with the digest of the training examples of all tasks."""
MANIFEST = "manifest_sha256"
"""Field of `meta` with the digest of all manifests; runs that began before `DATA` have it alone."""
TEACHER_DIGEST = "teacher_sha256"
"""Field of `meta` with the digest of a student's teacher."""
PHASE = checkpoint.PHASE
CHANGES = "data_changes"
"""Field of `meta` with the changes of data so far: the step, and the record before it."""
WHOLE = "all"
"""Name of the corpus of a run without a mixture."""
SHOWN = 12  # characters of a digest in a message


def of_phases(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts of a run with phases from those of each phase, which has one tokenizer."""
    data = {}
    for number, each in enumerate(facts, 1):
        for name, digest in each[DATA].items():
            data[_in_phase(name, number)] = digest
    manifests = [each[MANIFEST] for each in facts]
    known = all(manifest is not None for manifest in manifests)
    joined = hashlib.sha256("".join(manifests).encode()).hexdigest() if known else None
    return {**facts[0], DATA: data, MANIFEST: joined}


def _in_phase(name: str, number: int) -> str:
    """Return the name of a corpus in the record of a run; those of the first phase stay alone."""
    return name if number == 1 else f"phase {number}: {name}"


def phase_of_name(name: str) -> int:
    """Return the number of the phase of a corpus's name in the record of a run."""
    match = re.fullmatch(r"phase (\d+): .*", name)
    return int(match[1]) if match else 1


def _names_of_phase(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the corpora of the phase of a checkpoint, by their own names, of its record."""
    number = record.get(PHASE, 1)
    if number == 1:
        return dict(record[DATA])
    prefix = _in_phase("", number)
    return {
        name.removeprefix(prefix): digest
        for name, digest in record[DATA].items()
        if name.startswith(prefix)
    }


class Difference(NamedTuple):
    """Data that are not those of a record."""

    name: str
    found: str
    recorded: str


def difference(record: Mapping[str, Any], facts: Mapping[str, Any]) -> Difference | None:
    """Return the first of the data in `facts` that differ from `record`; None if none is known to.

    Both are `meta` or a part of it.
    """
    before, now = _digests(record), _digests(facts)
    if DATA not in record:
        # A record of before: other files than shards had null as the digest of their manifests.
        before = {name: record[name] for name in (MANIFEST, ROWS) if name in record}
        now = {name: facts.get(name) for name in before}
    for name in sorted(before | now):
        if before.get(name) != now.get(name):
            return Difference(name, short_digest(now.get(name)), short_digest(before.get(name)))
    return None


def _digests(record: Mapping[str, Any]) -> dict[str, Any]:
    digests = record.get(DATA) or {}
    if not isinstance(digests, Mapping):
        digests = {DATA: digests}  # equal to no digest, so a damaged record is refused
    rows = {ROWS: record[ROWS]} if ROWS in record else {}
    return {**digests, **rows}


def short_digest(digest: object) -> str:
    """Return the beginning of a digest, for a message."""
    return str(digest)[:SHOWN] if digest is not None else "none"


def is_known(record: Mapping[str, Any]) -> bool:
    """Return whether a record tells anything of its data."""
    return any(record.get(name) is not None for name in (DATA, ROWS, MANIFEST))


def check_same_data(run_dir: epath.Path, config: Config, facts: Mapping[str, Any]) -> None:
    """Check that a run goes on with the data of its newest checkpoint, where it has one.

    From the steps in `train.data_changes` it may have other data. Another tokenizer is never
    allowed: the same id would be another word. Raises `UserError`.
    """
    folder = checkpoint.newest_checkpoint(run_dir)
    if folder is None:
        return
    step = int(folder.name)
    record = checkpoint.read_meta(folder)
    if facts.get(FINGERPRINT) is not None:
        check_fingerprint(folder, record, facts[FINGERPRINT], where="the tokenizer of the data")
    _check_same_teacher(folder, record, facts)
    changed = difference(record, facts)
    if changed is None:
        _say_what_is_not_compared(folder, record, facts)
        return
    changed = _with_places(changed, record, config)
    _refuse_unless_listed(
        folder, changed, config, f"another --run-dir, or --train.data-changes {step}"
    )
    log.warning(
        "other data from step %d on: %s %s, before %s",
        step,
        changed.name,
        changed.found,
        changed.recorded,
    )


def _check_same_teacher(
    folder: epath.Path, record: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Raise `UserError` where a student goes on with another teacher, or without one."""
    recorded, found = record.get(TEACHER_DIGEST), facts.get(TEACHER_DIGEST)
    check(
        recorded == found,
        where="distill.teacher",
        found=f"teacher {short_digest(found)}",
        expected=f"{short_digest(recorded)}, with which {folder} was trained",
    )


def check_evaluated_data(
    folder: epath.Path, config: Config, facts: Mapping[str, Any], *, asked: bool
) -> None:
    """Check that a checkpoint is evaluated on the data that it records.

    With `asked` its user named other data, so a difference is said and not refused. `facts` may
    have a part of the data only, such as the validation examples. Raises `UserError`.
    """
    record = checkpoint.read_meta(folder)
    say_versions(folder, record)
    if isinstance(record.get(DATA), Mapping):
        names = facts.get(DATA, {})
        own = _names_of_phase(record)
        part = {name: digest for name, digest in own.items() if name in names}
        record = {DATA: part}
    elif ROWS in record:
        record = {}  # a record of before, which tells of training examples alone
    changed = difference(record, facts)
    if changed is None:
        _say_what_is_not_compared(folder, record, facts)
    elif asked:
        log.info("%s: evaluated on other data than those of its run: %s", folder, changed.name)
    else:
        step = folder.name
        _refuse_unless_listed(
            folder, changed, config, f"--train.data-changes {step} to evaluate on these"
        )


def check_fingerprint(
    folder: epath.Path, record: Mapping[str, Any], fingerprint: str, *, where: object
) -> None:
    """Raise `UserError` unless a tokenizer is the one that the record of checkpoint `folder` names.

    A model that was imported without a tokenizer names none.
    """
    recorded = record.get(FINGERPRINT)
    check(
        recorded in (None, fingerprint),
        where=str(where),
        found=f"tokenizer {short_digest(fingerprint)}",
        expected=f"{short_digest(recorded)}, with which {folder} was trained",
    )


def with_changes(record: Mapping[str, Any], facts: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Return `facts` with all changes of data that a run had, also one at `step`, for its `meta`.

    `record` is the `meta` of the checkpoint at `step` that the run goes on from, empty for none.
    """
    changes = list(record.get(CHANGES) or [])
    if step and difference(record, facts) is not None:
        kept = (DATA, ROWS, MANIFEST)
        before = {name: record[name] for name in kept if name in record}
        changes.append({"step": step, **before})
    return {**facts, CHANGES: changes} if changes else dict(facts)


def say_versions(folder: epath.Path, record: Mapping[str, Any]) -> None:
    """Log a line where other versions of packages wrote the checkpoint `folder`."""
    written = record.get("versions")
    if not isinstance(written, Mapping):
        return
    changed = []
    for name, version in checkpoint.versions().items():
        if written.get(name, version) != version:
            changed.append(f"{name} {written[name]} (now {version})")
    if changed:
        log.warning("%s was written with %s", folder, ", ".join(changed))


def _with_places(changed: Difference, record: Mapping[str, Any], config: Config) -> Difference:
    """Return the difference with the folders of the two corpora beside their digests."""
    now = _place(to_dict(config), changed.name)
    before = _place(record.get("config") or {}, changed.name)
    return Difference(changed.name, changed.found + now, changed.recorded + before)


def _place(values: Mapping[str, Any], name: str) -> str:
    data = values.get("data") or {}
    folders = mixture_folders(data.get("mixture") or ())
    if name in folders:
        return f" in {folders[name]}"
    # Of tasks the names say enough.
    return f" in {data.get('prepared_dir')}" if name == WHOLE else ""


def _refuse_unless_listed(
    folder: epath.Path, changed: Difference, config: Config, ways: str
) -> None:
    check(
        int(folder.name) in config.train.data_changes,
        where=f"{folder}: data, {changed.name}",
        found=changed.found,
        expected=f"{changed.recorded}, on which it was trained (or {ways})",
    )


def _say_what_is_not_compared(
    folder: epath.Path, record: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    if not is_known(record):
        log.info("%s does not record its data, so they are not compared", folder)
    elif record.get(MANIFEST) != facts.get(MANIFEST) and MANIFEST in record:
        log.info("%s: the manifest is another one now, its records are the same", folder)
