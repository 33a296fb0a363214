"""The command line that `ps` shows to every user of the machine, without passwords of databases."""

import ctypes
import sys
from pathlib import Path

from bertjax.config.sql_source import without_password

_PROCESS = Path("/proc/self")
_ARG_START = 48  # number of the field in /proc/PID/stat (proc_pid_stat(5))


def hide_passwords() -> None:
    """Overwrite the passwords in the memory from which Linux shows the command line.

    `sys.argv` is a copy of it and stays as it is. Other systems have no such file, so there a
    password should come from the environment or a file, as the documentation says.
    """
    if sys.platform != "linux":
        return
    try:
        words = (_PROCESS / "cmdline").read_bytes().split(b"\0")
        # The name of the program may contain spaces and brackets. Field 3 follows it.
        fields = (_PROCESS / "stat").read_text().rpartition(")")[2].split()
        address = int(fields[_ARG_START - 3])
    # A container may hide its processes' files.
    except OSError:
        return
    shown = b"\0".join(map(_hidden, words))
    # The kernel gives 0 to those who may not know the address.
    if address and shown != b"\0".join(words):
        ctypes.memmove(address, shown, len(shown))


def _hidden(word: bytes) -> bytes:
    """Return the word without password, filled up with spaces: the memory has no room to move."""
    text = word.decode(errors="surrogateescape")
    # As `--data.corpus=NAME`, or a name by itself.
    option = text[: text.find("=") + 1] if text.startswith("--") else ""
    shown = option + without_password(text.removeprefix(option))
    return shown.encode(errors="surrogateescape").ljust(len(word))
