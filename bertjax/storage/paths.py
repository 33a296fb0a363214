"""Facts that a path tells without a look at the disk."""

import os

from etils import epath


def is_plain_name(name: object) -> bool:
    """Return true if `name`, joined to a folder, can only be a file in that folder.

    This checks names from untrusted files: `name` must have no path separator and no drive, and it
    must not be the folder itself or its parent.
    """
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def is_local(path: epath.Path) -> bool:
    """Return true if `path` is on a disk of this machine, and not in a store."""
    return "://" not in os.fspath(path)
