"""Huge pages for the memory that the C library allocates.

Each training step on a CPU allocates its working memory again. The kernel provides this memory in
pages of 4 KiB and fills each page with zeros when it is first used. For a small BERT this takes a
third of the step. glibc requests pages of 2 MiB if the variable GLIBC_TUNABLES says so; it reads
the variable only once, when a process starts.
"""

import contextlib
import os
import sys
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb"
VARIABLE = "GLIBC_TUNABLES"
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FIRST_GLIBC = (2, 35)  # the first with this tunable


def restart_with_huge_pages() -> None:
    """Restart this process once with huge pages, if the kernel provides them on request.

    Nothing is done if the user has already set the tunable, to any value.
    """
    before = os.environ.get(VARIABLE, "")
    if TUNABLE in before or not _can_be_requested():
        return
    # 1: huge pages by madvise; 2 would take reserved ones (glibc manual, Memory Allocation
    # Tunables).
    tunables = f"{before}:{TUNABLE}=1" if before else f"{TUNABLE}=1"
    environment = {**os.environ, VARIABLE: tunables}
    # In place, so that the process keeps its number; `orig_argv` has the interpreter's options too.
    # Where the interpreter cannot be started again, this process goes on, at its usual speed.
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _can_be_requested() -> bool:
    if sys.platform != "linux" or "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return False
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    if name != "glibc":
        return False
    major, minor = version.split(".")[:2]
    if (int(major), int(minor)) < FIRST_GLIBC:
        return False
    try:
        # "[madvise]" means that processes get huge pages on request. With "always" no request is
        # necessary, and with "never" a request has no effect.
        return "[madvise]" in KERNEL.read_text()
    except OSError:
        return False
