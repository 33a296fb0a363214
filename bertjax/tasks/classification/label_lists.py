"""Labels of several classes: names with a separator, lists of names, and lists of 0 and 1."""

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from bertjax.errors import check, mismatch
from bertjax.tasks.classification.label_values import class_name
from bertjax.tasks.files.missing import is_missing
from bertjax.tasks.files.row import TableRow

ITEM = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[+-]?\d+(?:\.\d*)?|[Tt]rue|[Ff]alse|None|null)"""
LIST_TEXT = re.compile(rf"\[\s*(?:{ITEM}\s*(?:,\s*{ITEM}\s*)*,?\s*)?\]")
"""A list as JSON or Python writes it, of quoted texts and numbers."""
BIT_TEXTS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "true": 1, "false": 0}


def parse_list(separator: str, value: Any, where: str) -> tuple[Any, ...] | None:
    """Return what a value lists: () for an empty text, None if the label is missing.

    A text is a list as JSON or Python writes it, which is how pandas puts lists into CSV, or else
    names with `separator` between them.
    """
    if isinstance(value, list):
        check(
            not {list, dict} & set(map(type, value)),
            where=where,
            found=f"the list {_shown(value)}",
            expected="names of classes, or 0 and 1",
        )
        return tuple(value)
    if isinstance(value, str) and not value.strip():
        return ()
    if is_missing(value):
        return None
    if not isinstance(value, str):
        return (class_name(value, where),)
    text = value.strip()
    if LIST_TEXT.fullmatch(text):
        return _literal_list(text, where)
    inner = text[1:-1]
    # NumPy leaves the commas out ([0 1 0]), and other programs the quotes ([a, b]).
    is_other_list = text.startswith("[") and text.endswith("]") and not set(inner) & set("[]")
    check(
        not is_other_list or (separator not in inner and not re.match(r"\s*['\"\d]", inner)),
        where=where,
        found=f"the label {text[:80]!r}",
        expected=f"a list with commas and quotes, or names with {separator!r} between them",
    )
    return tuple(part.strip() for part in text.split(separator))


def looks_like_list(text: str) -> bool:
    """Return whether a text that should be one class is a list, of more than a single number."""
    return LIST_TEXT.fullmatch(text) is not None and bool(set(text) & set(",'\""))


class ListedClasses:
    """The lists of a split, and the classes that each of them stands for.

    If all lists have one length and no value but 0 and 1, each place is a class, named by its
    number from 0. Else the values are names.
    """

    def __init__(self) -> None:
        # 400,000 examples have few different lists. Types too, because 1 and True are equal.
        self._lists: dict[tuple[Any, ...], tuple[tuple[Any, ...], TableRow]] = {}

    def add(self, values: tuple[Any, ...], row: TableRow) -> tuple[Any, ...]:
        """Add a list of `parse_list` and its row; return its key in the result of `classes`."""
        key = (values, *map(type, values))
        # The first of equal keys is returned, so that examples share it; its row is for errors.
        return self._lists.setdefault(key, (key, row))[0]

    def classes(self) -> tuple[dict[tuple[Any, ...], tuple[str, ...]], tuple[str, ...]]:
        """Return the classes of each list, and all classes if the lists have places, else ().

        Raises `UserError` for a class that is named twice in a list, and for fractions, which are
        no names.
        """
        places = _places([key[0] for key in self._lists])
        classes = {}
        for key, row in self._lists.values():
            if places:
                bits = enumerate(map(bit_of, key[0]))
                classes[key] = tuple(str(place) for place, bit in bits if bit)
            else:
                classes[key] = _names(key[0], row.where)
        return classes, tuple(map(str, range(places)))


def bit_of(value: Any) -> int | None:
    """Return 0 or 1 for a value that stands for it, such as 1.0, True and "1"; else None."""
    if isinstance(value, str):
        return BIT_TEXTS.get(value.strip().lower())
    if isinstance(value, bool | int | float) and value in (0, 1):
        return int(value)
    return None


def _places(lists: Sequence[tuple[Any, ...]]) -> int:
    """Return the number of places, if the lists say 0 or 1 for each of them; else 0."""
    lengths = {len(values) for values in lists}
    if len(lengths) != 1:
        return 0
    (length,) = lengths
    # Names are text or whole numbers.
    has_other_types = False
    for values in lists:
        if any(bit_of(value) is None for value in values):
            return 0
        has_other_types |= any(isinstance(value, bool | float) for value in values)
    # Lists of one whole number, [0] and [1], name one class each. Longer lists of 0 and 1 are no
    # names: with three values they would name a class twice, with two all examples would be alike.
    return length if length > 1 or has_other_types else 0


def _names(values: tuple[Any, ...], where: str) -> tuple[str, ...]:
    shown = f"the list {_shown(values)}"
    places = "as many values in every example, each 0 or 1"
    names: list[str] = []
    for value in values:
        is_name = isinstance(value, str | int) and not isinstance(value, bool)
        if not is_name or (isinstance(value, str) and value and is_missing(value)):
            raise mismatch(where=where, found=shown, expected=f"names of classes, or {places}")
        name = class_name(value, where)
        if name:
            names.append(name)
    check(
        len(set(names)) == len(names),
        where=where,
        found=f"a class twice in {shown}",
        expected=f"each class once, or {places}",
    )
    return tuple(names)


def _shown(values: Sequence[Any]) -> str:
    return json.dumps(values, ensure_ascii=False, default=str)[:80]


def _literal_list(text: str, where: str) -> tuple[Any, ...]:
    """Return the values of a list that JSON or Python wrote."""
    try:
        return tuple(json.loads(text))
    except ValueError:
        pass
    try:
        return tuple(ast.literal_eval(text))
    except (ValueError, SyntaxError) as error:
        raise mismatch(
            where=where, found=f"the list {text[:80]}", expected="one of JSON or Python"
        ) from error
