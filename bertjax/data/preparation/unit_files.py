"""The files of a tokenized work unit: parts, sketches, and last `done.json`, which counts them.

Several copies of a work item may write them at once, since each file has the same bytes every time
and appears whole. So no copy removes one; leftovers are removed before the work is given out.
"""

import json
from collections import Counter
from collections.abc import Sequence

from etils import epath

from bertjax.data.records.manifest import WORK
from bertjax.errors import UserError
from bertjax.json_values import value_of
from bertjax.storage import check_locks, read_json, write_whole

DONE = "done.json"
"""File of a tokenized work unit, written last: its other files, and what was read and cleaned."""
# Five digits: what is being written has a longer name.
PARTS, SIGNATURES = "part-?????", "signatures-?????"
_FILES, _COUNTS = "files", "counts"


def write_done(unit: epath.Path, counts: Counter[str]) -> None:
    """Write `done.json` of a unit whose other files are written."""
    values = {_FILES: _sizes(unit), _COUNTS: counts}
    write_whole(unit / DONE, json.dumps(values).encode())


def is_whole(unit: epath.Path) -> bool:
    """Return True for a tokenized work unit with all files that its `done.json` names."""
    path = unit / DONE
    # Those of earlier versions name no files.
    return path.exists() and read_json(path).get(_FILES) == _sizes(unit)


def remove_unfinished_units(folder: epath.Path, names: Sequence[str]) -> None:
    """Remove what kills have left of tokenized work units, before workers make them anew."""
    check_locks(folder)
    for name in names:
        unit = folder / WORK / name
        if unit.exists() and not is_whole(unit):
            unit.rmtree()


def read_counts(folder: str, names: Sequence[str]) -> Counter[str]:
    """Return the counts of all tokenized work units of a preparation, added up.

    Raises `UserError` naming a file that is not as `done.json` says.
    """
    read: Counter[str] = Counter()
    for name in names:
        unit = epath.Path(folder) / WORK / name
        values = read_json(unit / DONE)
        where = str(unit / DONE)
        expected = value_of(dict[str, int], values.get(_FILES, {}), f"{where}: {_FILES}")
        found = _sizes(unit)
        for file in sorted({*expected, *found}):
            _check_size(unit / file, found.get(file), expected.get(file))
        read.update(value_of(dict[str, int], values.get(_COUNTS), f"{where}: {_COUNTS}"))
    return read


def check_size(path: epath.Path, size: int) -> None:
    """Raise `UserError` unless a file that this preparation wrote has this size."""
    _check_size(path, size_of(path), size)


def size_of(path: epath.Path) -> int | None:
    """Return the size of a file; None if there is none."""
    return path.stat().length if path.exists() else None


def _check_size(path: epath.Path, found: int | None, expected: int | None) -> None:
    # No `MismatchError`, which would remove the work of hours; a new start makes what is missing.
    if found != expected:
        raise UserError(
            f"{path}: found {_described(found)}, expected {_described(expected)}, as was written;"
            " the same command makes it again"
        )


def _described(size: int | None) -> str:
    return "no such file" if size is None else f"{size:,} bytes"


def _sizes(unit: epath.Path) -> dict[str, int]:
    """Return the size of each part and file of sketches, by name."""
    paths = [*unit.glob(PARTS), *unit.glob(SIGNATURES)]
    return {path.name: path.stat().length for path in sorted(paths)}
