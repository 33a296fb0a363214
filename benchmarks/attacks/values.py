"""What a verb wrote, as values that two undisturbed commands have in common.

Times, logs and drawings are left out. A saved state is its arrays: Orbax gives its files random
names. It is read by Orbax alone, so that no check of bertjax decides what is equal.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

WATCHING = re.compile(r"(^|/)(log\.txt|report\.html|tensorboard|compiled)(/|$)")
"""Files of a run that only show it."""
ABOUT_THE_SAVE = re.compile(r"(_CHECKPOINT_METADATA|commit_success\.txt)$")
SPEEDS = re.compile(r"_per_second$|seconds|_time$")


def values_of(out: Path) -> dict[str, Any]:
    """Return a value or a digest for everything in `out`, a file or a folder."""
    if out.is_file():
        return {"": _digest(out.read_bytes())}
    values: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        parts = path.relative_to(out).parts
        if WATCHING.search(name) or ABOUT_THE_SAVE.search(name):
            continue
        if path.is_dir():
            if path.name == "state" and "checkpoints" in parts:
                values |= {f"{name}/{key}": value for key, value in _state(path).items()}
        elif "checkpoints" not in parts or parts[-2] == "meta":
            # Of a checkpoint's other files, which are Orbax's own, none is a result.
            values[name] = _content(path)
    return values


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return the names whose values differ or are missing. More files are no difference."""
    return [name for name in expected if found.get(name) != expected[name]]


def left_over(folder: Path, out: Path, reference: Path) -> list[str]:
    """Return files in an attack's folder that an undisturbed command does not leave."""
    expected = {_plain(path.relative_to(reference)) for path in reference.rglob("*")}
    left = []
    for path in folder.rglob("*"):
        if path.is_relative_to(out):
            if path != out and _plain(path.relative_to(out)) not in expected:
                left.append(path.relative_to(folder).as_posix())
        elif not out.is_relative_to(path):
            left.append(path.relative_to(folder).as_posix())
    return left


def _plain(path: Path) -> str:
    """Return a path without the random parts of names: data of a state, files of events."""
    name = re.sub(r"((^|/)checkpoints/\d+/[^/]+)/.*", r"\1", path.as_posix())
    return re.sub(r"((^|/)(tensorboard|compiled))/.*", r"\1", name)


def _state(folder: Path) -> dict[str, str]:
    """Return a digest of each array of a saved state."""
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.restore(folder.resolve())
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    digests = {}
    for path, leaf in leaves:
        array = np.asarray(leaf)
        digests[jax.tree_util.keystr(path)] = _digest(
            f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        )
    return digests


def _content(path: Path) -> Any:
    content = path.read_bytes()
    if path.name == ".bertjax.json":
        # The record of an output names its files, among them those with random names.
        return json.loads(content)["whole"]
    if path.name == "metrics.jsonl":
        lines = content.decode(errors="replace").splitlines()
        return [_without_speeds(line) for line in lines]
    return _digest(content)


def _without_speeds(line: str) -> Any:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict):
        return entry
    return {name: value for name, value in entry.items() if not SPEEDS.search(name)}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
