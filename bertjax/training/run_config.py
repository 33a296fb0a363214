"""The configuration in a run folder, `config.json`: one for the whole run."""

import json
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from bertjax.config import Config, from_dict, to_dict
from bertjax.errors import UserError, check, disk_errors
from bertjax.given_files import read_json_value
from bertjax.parallel import hosts
from bertjax.storage import write_whole
from bertjax.training import checkpoint, continuation
from bertjax.training.logs.metrics_log import FILE as METRICS
from bertjax.training.provenance.data_record import check_same_data

FILE = "config.json"
CELLS = "cells"
"""Folder, in that of a sweep, with the folders of its runs."""
FAILED = "failed.json"
"""File of a run of a sweep whose training diverged."""
# Time after which a host must see a file that another host wrote. NFS may cache for half a minute
# that a file does not exist.
VISIBLE_SECONDS = 60.0


def write_run_config(
    run_dir: epath.Path, config: Config, facts: Mapping[str, Any] | None = None
) -> Config:
    """Write `config.json`, after comparing with what an earlier start of the run left there.

    This is `config.json` and the newest checkpoint, which also records the data: `facts` must agree
    with them, unless they are None. A start that ended before its first update binds nothing
    (`has_begun`). Returns `config` with the rules that the run keeps from its
    beginning (`continuation.kept_rules`). The first process writes. All processes must have the
    same configuration and the same `facts`, and must see the file, since they share the run folder.
    Raises `UserError` naming the first field that differs and must not.
    """
    numbering = ""
    if hosts.is_first():
        if facts is not None:
            check_same_data(run_dir, config, facts)
        numbering = _compare_and_write(run_dir, config).train.dropout_numbering
    _check_same_everywhere(config, facts or {})
    _check_shared(run_dir)
    return config.replace(train={"dropout_numbering": hosts.from_first(numbering)})


def has_begun(run_dir: epath.Path) -> bool:
    """Return whether there is a result in the folder of a run or sweep: an update, a checkpoint.

    Without one its configuration and tokenizer are those of a start that failed, and may change.
    """
    metrics = run_dir / METRICS
    try:
        logged = metrics.exists() and metrics.stat().length > 0
        marked = any((run_dir / name).exists() for name in (checkpoint.RESULT, FAILED))
        if logged or marked or checkpoint.has_checkpoint(run_dir):
            return True
        cells = run_dir / CELLS
        return cells.is_dir() and any(has_begun(cell) for cell in cells.iterdir())
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be read ({error.strerror or error})") from error


def _compare_and_write(run_dir: epath.Path, config: Config) -> Config:
    """Compare with what an earlier start left; write the file anew, and return what it holds."""
    path = run_dir / FILE
    made = max(checkpoint.steps_of(run_dir), default=0)
    for place, recorded in _records(run_dir, made):
        config = continuation.kept_rules(recorded, config)
        before = continuation.kept_rules(recorded, _parsed(place, recorded))
        continuation.check_unchanged(place, before, config, made)
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    # Also on a restart: the fields that may change are written as they are now.
    write_whole(path, (json.dumps(to_dict(config), indent=2) + "\n").encode())
    return config


def _records(run_dir: epath.Path, step: int) -> list[tuple[epath.Path, Any]]:
    """Return the configurations that a run began with, each with its file: none for a new run.

    `step` is that of the newest checkpoint, 0 for none.
    """
    records = []
    path = run_dir / FILE
    if path.exists() and has_begun(run_dir):
        records.append((path, _read_values(path)))
    if step:
        # `config.json` may be deleted or changed by hand; what was trained is in the checkpoint.
        folder = run_dir / checkpoint.FOLDER / str(step)
        values = checkpoint.read_meta(folder).get("config")
        if [values] != [recorded for _, recorded in records]:
            records.append((folder / "meta", values))
    return records


def _check_same_everywhere(config: Config, facts: Mapping[str, Any]) -> None:
    """Raise `UserError` where this process's configuration or facts are not the first one's."""
    values = continuation.comparable(config) | dict(facts)
    # Own values go through JSON like those of the first process: JSON turns tuples into lists.
    own = json.loads(json.dumps(values))
    first = json.loads(hosts.from_first(json.dumps(own)))
    for name, value in own.items():
        # Each host may have its own copy of the prepared data: `facts` tell that it is the same.
        same = value == first[name] or name == "data.prepared_dir"
        expected = f"{first[name]}, as {hosts.process_name_of(0)} has it"
        check(same, where=name, found=value, expected=expected)


def _check_shared(run_dir: epath.Path) -> None:
    """Raise `UserError` where this process does not see the file that the first one wrote."""
    path = run_dir / FILE
    deadline = time.monotonic() + VISIBLE_SECONDS
    is_visible = path.exists()
    while not is_visible and time.monotonic() < deadline:
        time.sleep(1)
        is_visible = path.exists()
    check(
        is_visible,
        where=str(run_dir),
        found=f"no {FILE} here, as {hosts.process_name_of(0)} wrote",
        expected="a folder that all hosts share",
    )


def read_run_config(run_dir: epath.Path) -> Config:
    """Return the configuration of a run; raise `UserError` if `config.json` cannot be read."""
    path = run_dir / FILE
    values = _read_values(path)
    return continuation.kept_rules(values, _parsed(path, values))


def _read_values(path: epath.Path) -> Any:
    return read_json_value(path, "a run's configuration")


def _parsed(path: epath.Path, values: Any) -> Config:
    return from_dict(Config, values, str(path))
