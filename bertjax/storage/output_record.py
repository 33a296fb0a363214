"""The record in an output folder: the request that made it, its files, and whether it is whole."""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from etils import epath

from bertjax.errors import check
from bertjax.storage.files import read_json_if_there, write_whole
from bertjax.storage.paths import is_plain_name

RECORD = ".bertjax.json"
"""File in an output folder: the request that made it, and whether it is whole."""


class Record(NamedTuple):
    """Content of `RECORD`."""

    request: str = ""
    """What `request_digest` returned; empty if no request shall find the output made."""
    whole: bool = True
    files: Mapping[str, str] = MappingProxyType({})
    """SHA-256 of each file, hexadecimal, by its path in the folder with `/`."""

    def names(self) -> set[str]:
        """Return the names in the folder that belong to the output."""
        return {RECORD, *(path.partition("/")[0] for path in self.files)}


def request_digest(verb: str, **values: Any) -> str:
    """Return a digest of a verb and of the values that decide what it writes."""
    text = json.dumps([verb, values], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def is_whole(folder: epath.Path) -> bool:
    """Return whether all files of an output are in place; true where none says otherwise."""
    return read_record(folder).whole


def check_whole(folder: epath.Path) -> None:
    """Raise `UserError` if `folder` is an output whose files are not all in place."""
    check(
        is_whole(folder),
        where=str(folder),
        found="an output that is not whole",
        expected="one that is (the command that makes it, once more)",
    )


def write_record(folder: epath.Path, record: Record) -> None:
    """Write the record of the output in `folder`."""
    values = {**record._asdict(), "files": dict(record.files)}
    write_whole(folder / RECORD, (json.dumps(values, indent=1) + "\n").encode())


def read_record(folder: epath.Path) -> Record:
    """Return the record in `folder`; that of a whole output where there is none.

    The file is untrusted, and what it names is removed: nothing outside of the folder.
    """
    path = folder / RECORD
    values = read_json_if_there(path)
    files = values.get("files", {})
    good = (
        set(values) <= set(Record._fields)
        and isinstance(values.get("request", ""), str)
        and isinstance(values.get("whole", True), bool)
        and isinstance(files, dict)
        and all(is_plain_name(part) for name in files for part in name.split("/"))
    )
    check(
        good, where=str(path), found="other fields or names", expected="those that bertjax writes"
    )
    return Record(**values)
