"""The run folder's claim: one configuration a run."""

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
# in which a host sees what another wrote; NFS remembers for half a minute what was not there
SEEN_SECONDS = 60.0

# Fields that may differ between the start of a run and its continuation: they change
# where and how often, not what is computed.
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


def claim(run_dir: epath.Path, config: Config, facts: Mapping[str, Any] | None = None) -> None:
    """Write `config.json`, after comparing with the one that is there; of several processes the
    first does.

    The others must have the same configuration and `facts` of the data, and see the file.
    Raises `UserError` naming the first field that must not differ and does.
    """
    if hosts.is_first():
        _compare_and_write(run_dir, config)
    # By way of JSON, in which the first one's come.
    mine = json.loads(json.dumps(_flat(to_dict(config)) | dict(facts or {})))
    first = json.loads(hosts.from_first(json.dumps(mine)))
    for name, value in mine.items():
        same = value == first[name] or name == "data.prepared_dir"
        check(
            same,
            where=name,
            found=value,
            expected=f"{first[name]}, as {hosts.process_name_of(0)} has it",
        )
    until = time.monotonic() + SEEN_SECONDS
    while not (seen := (run_dir / FILE).exists()) and time.monotonic() < until:
        time.sleep(1)
    check(
        seen,
        where=str(run_dir),
        found=f"no {FILE} here, as {hosts.process_name_of(0)} wrote",
        expected="a folder that all hosts share",
    )


def _compare_and_write(run_dir: epath.Path, config: Config) -> None:
    path = run_dir / FILE
    if path.exists():
        before, now = _flat(to_dict(read_config(run_dir))), _flat(to_dict(config))
        free = FREE | (
            {"train.steps"} if config.optimizer.schedule not in ("linear", "cosine") else set()
        )
        for name in now:
            same = name in free or before[name] == now[name]
            check(
                same,
                where=f"{path}: {name}",
                found=now[name],
                expected=f"{before[name]}, with which the run began (or another --run-dir)",
            )
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(to_dict(config), indent=2) + "\n").encode())


def read_config(run_dir: epath.Path) -> Config:
    """The configuration of a run; `UserError` when `config.json` is missing or broken."""
    path = run_dir / FILE
    try:
        return from_dict(Config, json.loads(path.read_text()), str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a run's configuration ({error})") from error


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {f"{prefix}{name}": value}
        )
    return flat
