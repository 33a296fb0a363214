"""Huge pages for the memory that the C library hands out.

A training step on a CPU asks for its working memory anew each time, and the kernel gives it in
pages of 4 KiB: of a step of a small BERT they take a third. glibc asks for pages of 2 MiB where
GLIBC_TUNABLES says so, which it reads once, when a process starts.
"""

import os
import sys
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb"
VARIABLE = "GLIBC_TUNABLES"
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_them() -> None:
    """Start this process over, once, with huge pages, where the kernel gives them to those who ask.

    Whoever sets the tunable, to whatever value, has decided: then nothing is done.
    """
    if TUNABLE in os.environ.get(VARIABLE, "") or not _can_be_asked_for():
        return
    told = ":".join(filter(None, [os.environ.get(VARIABLE), f"{TUNABLE}=1"]))
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, VARIABLE: told})


def _can_be_asked_for() -> bool:
    if sys.platform != "linux" or "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return False
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 35):
        return False
    try:
        return "[madvise]" in KERNEL.read_text()
    except OSError:
        return False
