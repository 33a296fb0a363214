"""Names of tags that are numbers, from the option `finetune.label_names`: names, or a file."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.errors import UserError, check, mismatch
from bertjax.tasks.files.json_rows import json_fault
from bertjax.tasks.files.lines import unmarked_lines
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.tagging.table_rows import TAG_FIELDS

OPTION = "finetune.label_names"


def tag_names(location: DataLocation, options: FinetuneConfig) -> tuple[str, ...]:
    """Return the names of the tags 0, 1, 2 and so on; empty if the option is not set.

    A single name is the name of a file, in the folder of the data or elsewhere. It has a name on
    each line, or is JSON: a list of names, an object with a name for each number (`id2label`) or
    with a number for each name (`label2id`), or one that has these or `names` in it, at any depth,
    as files of `transformers` and `datasets` do. Of several, those of the tags' field are taken.

    Raises `UserError` for a file that is missing or has no such names, and if a name is empty or
    given twice.
    """
    given = options.label_names
    fields = (options.label_column,) if options.label_column else TAG_FIELDS
    if len(given) != 1:
        where, names = OPTION, given
    else:
        path = _file(location, given[0])
        where = str(path)
        names = _json_names(path, fields) if ".json" in path.name else _lines(path)
    check(
        all(names) and len(set(names)) == len(names),
        where=where,
        found=", ".join(names),
        expected="each name once, and none empty",
    )
    return names


def _file(location: DataLocation, name: str) -> epath.Path:
    for path in (epath.Path(location.path) / name, epath.Path(name)):
        if path.exists() and not path.is_dir():
            return path
    raise UserError(
        f"{OPTION}: found {name}, expected several names, or a file in {location.path} or elsewhere"
    )


def _lines(path: epath.Path) -> tuple[str, ...]:
    names = [line.text.strip() for line in unmarked_lines(path)]
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def _json_names(path: epath.Path, fields: Sequence[str]) -> tuple[str, ...]:
    text = "\n".join(line.text for line in unmarked_lines(path))
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise mismatch(
            where=str(path), found=json_fault(error), expected="names of tags"
        ) from error
    # Of several lists, as in a file about all columns of a data set, the tags' own field has one.
    own = [names for inner in _under(values, fields) for names in names_in(inner)]
    lists = own or names_in(values)
    check(
        len(set(lists)) == 1,
        where=str(path),
        found=f"{len(set(lists))} lists of names" if lists else "no names of tags",
        expected="a list of names, id2label or label2id",
    )
    return lists[0]


def _under(values: Any, fields: Sequence[str]) -> list[Any]:
    """Return the values of one of `fields` in the objects of a value of JSON, at any depth."""
    if not isinstance(values, Mapping):
        return []
    under = []
    for name, inner in values.items():
        under += [inner] if name in fields else _under(inner, fields)
    return under


def names_in(values: Any) -> list[tuple[str, ...]]:
    """Return the lists of names of numbers in a value of JSON, the outermost of each branch.

    A list within an object is one of names only if it is called `names`.
    """
    names = _names(values)
    if names:
        return [names]
    if not isinstance(values, Mapping):
        return []
    lists = []
    for name, inner in values.items():
        if isinstance(inner, Mapping) or name == "names":
            lists += names_in(inner)
    return lists


def _names(values: Any) -> tuple[str, ...]:
    """Return the names of a list, an `id2label` or a `label2id`; empty if it is none of these."""
    if isinstance(values, list):
        return tuple(values) if all(isinstance(name, str) for name in values) else ()
    if not isinstance(values, Mapping):
        return ()
    by_number = dict(values)
    if all(isinstance(number, int) for number in values.values()):
        by_number = {str(number): name for name, number in values.items()}
    names = []
    for number in range(len(by_number)):
        name = by_number.get(str(number))
        if not isinstance(name, str):
            return ()
        names.append(name)
    return tuple(names)
