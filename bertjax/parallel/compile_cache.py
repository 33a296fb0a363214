"""Where compiled programs are kept, so that what starts again does not compile again.

JAX keeps and finds them (docs.jax.dev, persistent compilation cache); here is only where, and for
how long.
"""

import contextlib
import logging
import os
from collections.abc import Mapping

import jax
from etils import epath
from jax._src import compilation_cache  # how an entry is packed, which JAX gives by no public name

from bertjax.parallel import hosts

OWN = "JAX_COMPILATION_CACHE_DIR"
FOLDER = "compiled"  # in a run's folder
KEPT_BYTES = 4 << 30

log = logging.getLogger(__name__)


def start(
    run_dir: epath.Path | None = None, environment: Mapping[str, str] = os.environ
) -> epath.Path | None:
    """Keep programs from now on, in the folder that is returned.

    Of one process it is `bertjax` in the user's cache folder (`XDG_CACHE_HOME`, or ~/.cache), of
    several it is in `run_dir`, which they share: only the first process writes, and on CPUs, where
    JAX's keys differ from process to process, only it finds. `JAX_COMPILATION_CACHE_DIR` names
    another, and `JAX_ENABLE_COMPILATION_CACHE=false` has none; then nothing is done here, and None
    returned. So too for several processes without `run_dir`, and where the folder cannot be made,
    which is logged.

    Entries are programs that JAX runs: whoever can write them can run code as the user.
    """
    if environment.get(OWN) or not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return None
    if hosts.is_multiprocess() and run_dir is None:
        return None
    folder = run_dir / FOLDER if run_dir and hosts.is_multiprocess() else _user_folder(environment)
    folder /= f"{_cores(environment)}-cores"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if hosts.is_first():
            _drop_broken(folder)
            _drop_oldest(folder)
    except OSError as error:
        log.warning("compiled programs are not kept: %s", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _cores(environment: Mapping[str, str]) -> str:
    """For how many cores XLA cuts a program for the CPU into pieces, which JAX's keys leave out."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return environment.get("NPROC") or str(found)


def _user_folder(environment: Mapping[str, str]) -> epath.Path:
    home = environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return epath.Path(home) / "bertjax" / FOLDER


def _entries(folder: epath.Path) -> list[tuple[float, int, epath.Path]]:
    """Time of writing, size and path of each, the oldest first; those that go away meanwhile are
    left out.
    """
    found = []
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found.append((float(stat.mtime), stat.length, path))
    return sorted(found, key=lambda one: one[0])


def _drop_broken(folder: epath.Path) -> None:
    """Remove the newest entry if it is cut short: JAX would neither use nor replace what a kill
    left half-written.
    """
    for _, _, path in _entries(folder)[-1:]:
        try:
            compilation_cache.decompress_executable(path.read_bytes())
        except Exception:  # zlib's, or that of one of two libraries for zstd
            path.unlink(missing_ok=True)


def _drop_oldest(folder: epath.Path) -> None:
    entries = _entries(folder)
    size = sum(length for _, length, _ in entries)
    for _, length, path in entries:
        if size <= KEPT_BYTES:
            return
        path.unlink(missing_ok=True)
        size -= length
