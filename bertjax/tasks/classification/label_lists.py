"""Labels of several classes: names with a separator, lists of names, and lists of 0 and 1."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bertjax.errors import check, mismatch
from bertjax.tasks.classification.label_values import class_name
from bertjax.tasks.classification.list_texts import Listed, check_no_other_value, written_list
from bertjax.tasks.files.label_text import WholeLabel
from bertjax.tasks.files.missing import is_missing
from bertjax.tasks.files.row import TableRow

BIT_TEXTS = dict.fromkeys(("0", "0.", "0.0", "false"), 0) | dict.fromkeys(
    ("1", "1.", "1.0", "true"), 1
)
PLACES = "as many values in every example, each 0 or 1"
UNKNOWN = ("-1", "-1.0", "-1.")
"""What test sets have where an example was not labelled."""


def parse_list(separator: str, value: Any, where: str) -> Listed | None:
    """Return what a value lists: nothing for an empty text, None if the label is missing.

    A text is a list, a tuple or a set as JSON or Python writes it, which is how pandas puts them
    into CSV, or else names with `separator` between them.

    Raises `UserError` for a text that other programs wrote for an array, a dictionary and the like.
    """
    if isinstance(value, list):
        check(
            not {list, dict} & set(map(type, value)),
            where=where,
            found=f"the list {_shown(value)}",
            expected="names of classes, or 0 and 1",
        )
        return Listed(tuple(value))
    if isinstance(value, str) and not value.strip():
        return Listed((), is_empty_cell=True)
    if is_missing(value):
        return None
    if isinstance(value, WholeLabel) or not isinstance(value, str):
        return Listed((class_name(value, where),))
    text = value.strip()
    listed = written_list(text, where)
    if listed is None:
        check_no_other_value(text, separator, where)
        listed = Listed(tuple(part.strip() for part in text.split(separator)))
    return listed


class ListedClasses:
    """The lists of a split, and the classes that each of them stands for.

    If all lists have one length and no value but 0 and 1, each place is a class, named by its
    number from 0. Else the values are names.
    """

    def __init__(self) -> None:
        # 400,000 examples have few different lists. Types too, because 1 and True are equal.
        self._lists: dict[tuple[Any, ...], tuple[tuple[Any, ...], TableRow]] = {}

    def add(self, listed: Listed, row: TableRow) -> tuple[Any, ...]:
        """Add what `parse_list` returned for a row; return its key in the result of `classes`."""
        key = (listed, *map(type, listed.values))
        # The first of equal keys is returned, so that examples share it; its row is for errors.
        return self._lists.setdefault(key, (key, row))[0]

    def classes(self) -> tuple[dict[tuple[Any, ...], tuple[str, ...] | None], tuple[str, ...]]:
        """Return the classes of each list, and all classes if the lists have places, else ().

        Where lists have places, an empty cell and a list of unknown values are missing labels, with
        the classes None. So are they where no list has a known value, as in a test set. Among names
        an empty cell says that there is no class.

        Raises `UserError` for a class that is named twice in a list, and for fractions, which are
        no names.
        """
        if self._none_is_known():
            return dict.fromkeys(self._lists), ()
        places = _places([key[0] for key in self._lists if not _is_unknown(key[0])])
        classes: dict[tuple[Any, ...], tuple[str, ...] | None] = {}
        for key, row in self._lists.values():
            listed: Listed = key[0]
            if not places:
                classes[key] = self._names(listed, row)
            elif _is_unknown(listed):
                check(
                    listed.is_empty_cell or len(listed.values) == places,
                    where=row.where,
                    found=f"the list {_shown(listed.values)}",
                    expected=f"{places} values, as many as in the other examples",
                )
                classes[key] = None
            else:
                bits = enumerate(map(bit_of, listed.values))
                classes[key] = tuple(str(place) for place, bit in bits if bit)
        return classes, tuple(map(str, range(places)))

    def _none_is_known(self) -> bool:
        """Return whether there are lists of unknown values, and no others but empty cells."""
        filled = [key[0] for key in self._lists if not key[0].is_empty_cell]
        return bool(filled) and all(map(_has_unknown_values, filled))

    def _names(self, listed: Listed, row: TableRow) -> tuple[str, ...]:
        """Return the names in a list; `UserError` if they are none, or one is there twice."""
        if len(listed.values) > 1 and _are_bits(listed) and not _could_be_names(listed.values):
            # Places that another example has not: that one is wrong, not this.
            self._check_lengths(listed, row)
        names = _named(listed.values, row.where)
        check(
            len(set(names)) == len(names),
            where=row.where,
            found=f"a class twice in the list {_shown(listed.values)}",
            expected=f"each class once, or {PLACES}",
        )
        return names

    def _check_lengths(self, listed: Listed, row: TableRow) -> None:
        """Raise `UserError` for the first list that differs from most others, of 0 and 1."""
        all_lists = [(key[0], other) for key, other in self._lists.values()]
        lengths = Counter(len(each.values) for each, _ in all_lists if _are_bits(each))
        usual = lengths.most_common(1)[0][0]
        for other, its_row in all_lists:
            is_usual = _are_bits(other) and len(other.values) == usual
            if is_usual or _is_unknown(other):
                continue
            raise mismatch(
                where=its_row.where,
                found=f"the list {_shown(other.values)}",
                expected=f"{usual} values, each 0 or 1, as in {_shown(listed.values)} of"
                f" {row.unit} {row.number}; or in every list names, each once",
            )


def _are_bits(listed: Listed) -> bool:
    """Return whether a list could have places: it has an order, and no value but 0 and 1."""
    bits = map(bit_of, listed.values)
    return listed.has_order and bool(listed.values) and all(bit is not None for bit in bits)


def _is_unknown(listed: Listed) -> bool:
    """Return whether a value says nothing where others have places: an empty cell, or [-1, -1]."""
    # Beside other lists, [-1] may name a class.
    return listed.is_empty_cell or (len(listed.values) > 1 and _has_unknown_values(listed))


def _has_unknown_values(listed: Listed) -> bool:
    unknown = [is_missing(value) or str(value).strip() in UNKNOWN for value in listed.values]
    return bool(unknown) and all(unknown)


def bit_of(value: Any) -> int | None:
    """Return 0 or 1 for a value that stands for it, such as 1.0, True and "1"; else None."""
    if isinstance(value, str):
        return BIT_TEXTS.get(value.strip().lower())
    if isinstance(value, bool | int | float) and value in (0, 1):
        return int(value)
    return None


def _places(lists: Sequence[Listed]) -> int:
    """Return the number of places, if the lists say 0 or 1 for each of them; else 0."""
    lengths = {len(listed.values) for listed in lists}
    if len(lengths) != 1:
        return 0
    (length,) = lengths
    # Names are text or whole numbers.
    has_other_types = False
    for listed in lists:
        if not _are_bits(listed):
            return 0
        has_other_types |= any(isinstance(value, bool | float) for value in listed.values)
    # Lists of one whole number, [0] and [1], name one class each. Longer lists of 0 and 1 are no
    # names: with three values they would name a class twice, with two all examples would be alike.
    return length if length > 1 or has_other_types else 0


def _could_be_names(values: tuple[Any, ...]) -> bool:
    """Return whether 0 and 1 could be names of classes: whole numbers or text, each once."""
    has_others = any(isinstance(value, bool | float) for value in values)
    return not has_others and len(set(map(bit_of, values))) == len(values)


def _named(values: tuple[Any, ...], where: str) -> tuple[str, ...]:
    names: list[str] = []
    for value in values:
        is_name = isinstance(value, str | int) and not isinstance(value, bool)
        if not is_name or (isinstance(value, str) and value and is_missing(value)):
            raise mismatch(
                where=where,
                found=f"the list {_shown(values)}",
                expected=f"names of classes, or {PLACES}",
            )
        name = class_name(value, where)
        if name:
            names.append(name)
    return tuple(names)


def _shown(values: Sequence[Any]) -> str:
    return json.dumps(values, ensure_ascii=False, default=str)[:80]
