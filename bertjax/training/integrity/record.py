"""What a checkpoint records of itself: `meta`, and `state/digests.json`.

Both are JSON objects with a digest of their own values. `digests.json` has the sums of each array,
and the digests of those files from which Orbax learns where an array's bytes are.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from etils import epath

from bertjax.errors import UserError
from bertjax.storage import read_json
from bertjax.training.checkpoint_files import checkpoint_errors
from bertjax.training.integrity.damage import DamagedCheckpointError, is_passing

log = logging.getLogger("bertjax")

STATE = "state"
DIGESTS = "digests.json"
META = ("meta", "metadata")  # the name of the file is that of Orbax's JsonSave
METRICS = ("metrics", "metrics")
OWN = "own_sha256"
"""Field with the SHA-256 of the other fields."""
SCORE = "score"
"""Field of `meta` with the number by which Orbax's file of metrics chooses the best checkpoint."""


class SavedArray(NamedTuple):
    """What is known of an array that was saved."""

    shape: tuple[int, ...]
    dtype: str
    sums: tuple[int, ...]
    """The result of `part_sums` for the whole array."""


def with_own_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values with a digest of them."""
    # As they will be read: JSON makes lists of tuples, and text of the keys of a dictionary.
    as_read = json.loads(json.dumps(values))
    return {**as_read, OWN: _digest(as_read)}


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_meta(folder: epath.Path) -> dict[str, Any]:
    """Return the `meta` of a checkpoint folder; raise `DamagedCheckpointError` if it has changed.

    A checkpoint of an earlier version has no digests: it is not checked, which is said once.
    """
    with checkpoint_errors(folder):
        values = _checked(folder, folder.joinpath(*META))
        is_recorded = (folder / STATE / DIGESTS).exists()
    if values is None:
        raise DamagedCheckpointError(folder, "no meta")
    if OWN not in values and not is_recorded:
        _say_unchecked(folder)
        return values
    if OWN not in values:
        raise DamagedCheckpointError(folder, "no digest in its meta")
    if not is_recorded:
        raise DamagedCheckpointError(folder, f"no {STATE}/{DIGESTS}")
    return {name: value for name, value in values.items() if name != OWN}


def read_saved_arrays(folder: epath.Path) -> dict[str, SavedArray] | None:
    """Return what `digests.json` says of the arrays of a checkpoint folder, by their names.

    None stands for a checkpoint of an earlier version, which has no digests. The files that tell
    Orbax where the arrays are must be as they were saved. Raises `DamagedCheckpointError`.
    """
    read_meta(folder)  # tells a checkpoint without digests from one that has lost them
    with checkpoint_errors(folder):
        values = _checked(folder, folder / STATE / DIGESTS)
        if values is None:
            return None
        for name, digest in values["files"].items():
            if _file_digest(folder / STATE / name) != digest:
                raise DamagedCheckpointError(folder, f"{STATE}/{name} changed or missing")
    return {
        name: SavedArray(tuple(entry["shape"]), entry["dtype"], tuple(entry["sums"]))
        for name, entry in values["arrays"].items()
    }


def check_score(folder: epath.Path) -> None:
    """Check the file from which Orbax chooses the best checkpoint against `meta`.

    Raises `DamagedCheckpointError`.
    """
    meta = read_meta(folder)
    if not (folder / STATE / DIGESTS).exists():
        return
    path = folder.joinpath(*METRICS)
    with checkpoint_errors(folder):
        metrics = _json_of(folder, path) if path.exists() else {}
    # As text: a score that is no number is equal to itself.
    if str(metrics.get("score")) != str(meta.get(SCORE)):
        raise DamagedCheckpointError(folder, "another score in its metrics than in its meta")


def write_digests(state: epath.Path, arrays: Mapping[str, SavedArray]) -> None:
    """Write `digests.json` into the folder `state` of a checkpoint that is being finished."""
    names = sorted(path.name for path in state.iterdir() if path.is_file())
    values = {
        "arrays": {name: entry._asdict() for name, entry in sorted(arrays.items())},
        "files": {name: _file_digest(state / name) for name in names},
    }
    (state / DIGESTS).write_text(json.dumps(with_own_digest(values)))


def _file_digest(path: epath.Path) -> str | None:
    """Return the SHA-256 of a file; None if there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _checked(folder: epath.Path, path: epath.Path) -> dict[str, Any] | None:
    """Return the JSON object of a file, None if there is none; check its own digest if it has one.

    Raises `DamagedCheckpointError` for one that cannot be read, or is not as it was written.
    """
    if not path.exists():
        return None
    values = _json_of(folder, path)
    others = {name: value for name, value in values.items() if name != OWN}
    if OWN in values and values[OWN] != _digest(others):
        raise DamagedCheckpointError(folder, f"{path.relative_to(folder)} changed")
    if OWN not in values and path.name == DIGESTS:
        raise DamagedCheckpointError(folder, f"{path.relative_to(folder)} changed")
    return values


def _json_of(folder: epath.Path, path: epath.Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except UserError as error:
        if error.__cause__ is not None and is_passing(error.__cause__):
            raise
        name = path.relative_to(folder)
        raise DamagedCheckpointError(folder, f"{name} that is no JSON object") from error


@cache
def _say_unchecked(folder: epath.Path) -> None:
    """Log once for each folder that it cannot be checked."""
    log.info("%s: saved by a version without digests, so its numbers are not checked", folder)
