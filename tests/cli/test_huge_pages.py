import os
import subprocess
import sys

import pytest

from bertjax.cli import huge_pages

PROGRAM = """
import os, sys
from bertjax.cli import huge_pages
print(os.getpid(), os.environ.get(huge_pages.VARIABLE), *sys.argv[1:], flush=True)
huge_pages.restart_with_huge_pages()
print("on", flush=True)
"""

needs_huge_pages = pytest.mark.skipif(
    not huge_pages._can_be_requested(), reason="the kernel gives no huge pages on request here"
)


def output_lines(words: list[str], environment: dict[str, str]) -> list[str]:
    """The lines of a Python program and its words, started with no tunables but those of
    `environment`.
    """
    kept = {name: value for name, value in os.environ.items() if name != huge_pages.VARIABLE}
    command = [sys.executable, "-c", *words]
    ended = subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    return ended.stdout.splitlines()


def started(**environment: str) -> list[list[str]]:
    return [line.split(" ", 2) for line in output_lines([PROGRAM, "a b", "--c"], environment)]


@needs_huge_pages
def test_the_process_starts_over_once_with_the_same_words_and_number():
    first, second, on = started()
    assert first[1:] == ["None", "a b --c"]
    assert second == [first[0], "glibc.malloc.hugetlb=1", "a b --c"]
    assert on == ["on"]


@needs_huge_pages
def test_other_tunables_are_kept():
    _, second, _ = started(GLIBC_TUNABLES="glibc.malloc.arena_max=3")
    assert second[1] == "glibc.malloc.arena_max=3:glibc.malloc.hugetlb=1"


def test_who_has_decided_is_left_alone():
    assert len(started(GLIBC_TUNABLES="glibc.malloc.hugetlb=0")) == 2


@needs_huge_pages
def test_large_arrays_lie_in_huge_pages():
    program = (
        "from bertjax.cli import huge_pages; huge_pages.restart_with_huge_pages()\n"
        "import numpy as np; x = np.ones(2**25); print(open('/proc/self/smaps_rollup').read())"
    )
    (huge,) = (
        int(line.split()[1])
        for line in output_lines([program], {})
        if line.startswith("AnonHugePages")
    )
    assert huge > 2**17  # KiB: half of the array
