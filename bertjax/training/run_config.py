"""The configuration in a run folder, `config.json`: one for the whole run."""

import json
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from bertjax.config import Config, from_dict, to_dict
from bertjax.errors import UserError, check, disk_errors
from bertjax.parallel import hosts
from bertjax.storage import write_whole

FILE = "config.json"
# Time after which a host must see a file that another host wrote. NFS may cache for half a minute
# that a file does not exist.
VISIBLE_SECONDS = 60.0

# Fields that may change between the start of a run and its continuation: they change where and how
# often something is done, not what is computed.
FREE = {
    "data.prepared_dir",
    "data.workers",
    "data.skip_damaged",
    "model.scan_unroll",
    "model.remat",
    "model.kernels",
    "mesh.replica",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "mesh.sequence",
    "train.log_every_steps",
    "train.eval_every_steps",
    "train.eval_max_batches",
    "train.save_every_steps",
    "train.keep_checkpoints",
    "train.max_nonfinite_steps",
    "train.overfit_evaluations",
    "train.prefetch_batches",
}


def write_run_config(
    run_dir: epath.Path, config: Config, facts: Mapping[str, Any] | None = None
) -> None:
    """Write `config.json`, after comparing with one that an earlier start of the run left there.

    The first process writes. All processes must have the same configuration and the same `facts`
    about the data, and must see the file, since they share the run folder. Raises `UserError`
    naming the first field that differs and must not.
    """
    if hosts.is_first():
        _compare_and_write(run_dir, config)
    _check_same_everywhere(config, facts or {})
    _check_shared(run_dir)


def _compare_and_write(run_dir: epath.Path, config: Config) -> None:
    path = run_dir / FILE
    if path.exists():
        _check_unchanged(path, read_run_config(run_dir), config)
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    # Also on a restart: the fields that may change are written as they are now.
    write_whole(path, (json.dumps(to_dict(config), indent=2) + "\n").encode())


def _check_unchanged(path: epath.Path, before: Config, now: Config) -> None:
    """Raise `UserError` naming a field that must stay as it was and does not."""
    free = FREE
    if now.optimizer.schedule not in ("linear", "cosine"):
        # Of the other schedules the rates do not depend on the number of steps.
        free = FREE | {"train.steps"}
    values_before = _flat(to_dict(before))
    for name, value in _flat(to_dict(now)).items():
        check(
            name in free or values_before[name] == value,
            where=f"{path}: {name}",
            found=value,
            expected=f"{values_before[name]}, with which the run began (or another --run-dir)",
        )


def _check_same_everywhere(config: Config, facts: Mapping[str, Any]) -> None:
    """Raise `UserError` where this process's configuration or facts are not the first one's."""
    values = _flat(to_dict(config)) | dict(facts)
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
    try:
        return from_dict(Config, json.loads(path.read_text()), str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a run's configuration ({error})") from error


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested dict by their dotted names, `train.steps`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
