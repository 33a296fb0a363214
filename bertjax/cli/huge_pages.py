"""Huge pages for the memory that the C library allocates.

A training step on a CPU allocates its working memory anew each time, and the kernel gives it in
pages of 4 KiB, each filled with zeros at its first use: a third of the step of a small BERT. glibc
asks for pages of 2 MiB where GLIBC_TUNABLES says so. It reads the variable once, when a process
starts.
"""

import os
import sys
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb"
VARIABLE = "GLIBC_TUNABLES"
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FIRST_GLIBC = (2, 35)  # the first with this tunable


def restart_with_huge_pages() -> None:
    """Start this process over, once, with huge pages, where the kernel gives them on request.

    A user who has set the tunable, to whatever value, has decided: then nothing is done.
    """
    before = os.environ.get(VARIABLE, "")
    if TUNABLE in before or not _can_be_requested():
        return
    # 1: huge pages by madvise; 2 would take reserved ones (glibc manual, Memory Allocation
    # Tunables).
    tunables = f"{before}:{TUNABLE}=1" if before else f"{TUNABLE}=1"
    environment = {**os.environ, VARIABLE: tunables}
    # In place, so that the process keeps its number; `orig_argv` has the interpreter's options too.
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
        # "madvise" in brackets: huge pages for those who ask. "always" needs no asking, and with
        # "never" asking is in vain.
        return "[madvise]" in KERNEL.read_text()
    except OSError:
        return False
