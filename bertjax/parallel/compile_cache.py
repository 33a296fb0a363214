"""Folder of compiled programs, so that a program is not compiled again at each start.

JAX writes and looks up the entries (docs.jax.dev, persistent compilation cache). This module
chooses the folder and limits its size.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from typing import NamedTuple

import jax
from etils import epath
from jax._src import compilation_cache  # how an entry is packed, which JAX gives by no public name

from bertjax.parallel import hosts

USERS_FOLDER = "JAX_COMPILATION_CACHE_DIR"  # a variable of JAX: who sets it chooses the folder
FOLDER = "compiled"  # in a run's folder, and in the user's cache folder
KEPT_BYTES = 4 << 30  # of all entries together, looked at when a run starts

log = logging.getLogger("bertjax")


class Entry(NamedTuple):
    """A compiled program on the disk."""

    written: float
    """Time of writing, in seconds since 1970."""
    size: int
    """In bytes."""
    path: epath.Path


def start(
    run_dir: epath.Path | None = None, environment: Mapping[str, str] = os.environ
) -> epath.Path | None:
    """Make JAX keep compiled programs from now on, and return the folder that it keeps them in.

    A run of one process uses `bertjax` in the user's cache folder (`XDG_CACHE_HOME`, or ~/.cache).
    The processes of a larger run share a folder in `run_dir`, to which only the first process
    writes. On CPUs only the first process also finds entries, because JAX's keys differ from
    process to process.

    Does nothing and returns None if `JAX_COMPILATION_CACHE_DIR` names another folder, if
    `JAX_ENABLE_COMPILATION_CACHE=false`, or if there are several processes and no `run_dir`. If the
    folder cannot be made, a warning is logged and None is returned.

    Entries are programs that JAX runs, so anyone who can write them can run code as the user.
    Therefore only the user has access to the folder.
    """
    is_enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    if environment.get(USERS_FOLDER) or not is_enabled:
        return None
    if not hosts.is_multiprocess():
        folder = _user_folder(environment)
    elif run_dir is not None:
        folder = run_dir / FOLDER
    else:
        return None
    # A folder for each number of cores, for the reason that `_cores` gives.
    folder /= f"{_cores(environment)}-cores"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Several processes share the folder: two that clean it would disturb each other.
        if hosts.is_first():
            _drop_broken(folder)
            _drop_oldest(folder)
    except OSError as error:
        log.warning("compiled programs are not kept: %s", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _cores(environment: Mapping[str, str]) -> str:
    """Return the number of cores that XLA divides a CPU program over.

    JAX's keys do not contain it, so JAX would also take programs for another number of cores.
    """
    if hasattr(os, "sched_getaffinity"):
        # taskset, Slurm and cpusets may give a process fewer cores than the machine has.
        cores: int | None = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    return environment.get("NPROC") or str(cores)


def _user_folder(environment: Mapping[str, str]) -> epath.Path:
    cache = environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return epath.Path(cache) / "bertjax" / FOLDER


def _entries(folder: epath.Path) -> list[Entry]:
    """Return the entries of `folder`, the oldest first.

    Another process may remove entries at the same time; entries that are gone are left out.
    """
    entries = []
    # JAX names an entry KEY-cache, and may keep its time of use beside it as KEY-atime.
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            entries.append(Entry(float(stat.mtime), stat.length, path))
    return sorted(entries, key=lambda entry: entry.written)


def _drop_broken(folder: epath.Path) -> None:
    """Remove the newest entry if it is incomplete.

    If a process is killed while it writes an entry, the entry is incomplete, and JAX neither uses
    nor replaces it. Only the newest entry is checked: no other one can be incomplete for this
    reason, and reading all would take long.
    """
    entries = _entries(folder)
    if not entries:
        return
    newest = entries[-1].path
    try:
        compilation_cache.decompress_executable(newest.read_bytes())
    except Exception:  # zlib's error, or that of one of two libraries for zstd
        newest.unlink(missing_ok=True)


def _drop_oldest(folder: epath.Path) -> None:
    """Remove the oldest entries until the rest takes at most `KEPT_BYTES`."""
    entries = _entries(folder)
    size = sum(entry.size for entry in entries)
    for entry in entries:
        if size <= KEPT_BYTES:
            return
        entry.path.unlink(missing_ok=True)
        size -= entry.size
