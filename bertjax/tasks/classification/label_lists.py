"""Labels of several classes: names with a separator, lists of names, and lists of 0 and 1."""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bertjax.errors import check, mismatch
from bertjax.tasks.classification.label_values import class_name
from bertjax.tasks.examples import TextExample
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


def with_names(examples: Sequence[TextExample], rows: Sequence[TableRow]) -> list[TextExample]:
    """Return the examples of a split with the names of their classes in place of `parse_list`'s.

    If all lists have one length and no value but 0 and 1, each place is a class, named by its
    number from 0, and `TextExample.classes` has them all. Else the values are names.

    `rows` are those of the examples. Raises `UserError` for a class that is named twice in an
    example, and for fractions, which are no names.
    """
    lists = [example.label for example in examples if isinstance(example.label, tuple)]
    places = _places(lists)
    classes = tuple(str(place) for place in range(places))
    # 400,000 examples have few different sets of classes, and share these objects.
    known: dict[tuple[Any, ...], tuple[str, ...]] = {}
    named = []
    for example, row in zip(examples, rows, strict=True):
        label = example.label
        if not isinstance(label, tuple):
            named.append(example)
        elif places:
            bits = tuple(bit_of(value) for value in label)
            if bits not in known:
                known[bits] = tuple(str(place) for place, bit in enumerate(bits) if bit)
            named.append(replace(example, label=known[bits], classes=classes))
        else:
            names = _names(label, row.where)
            named.append(replace(example, label=known.setdefault(names, names)))
    return named


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
    has_fractions = False
    for values in lists:
        if any(bit_of(value) is None for value in values):
            return 0
        has_fractions = has_fractions or any(_is_fraction(value) for value in values)
    # Lists of one whole number, [0] and [1], name one class each. Longer lists of 0 and 1 are no
    # names: with three values they would name a class twice, with two all examples would be alike.
    return length if length > 1 or has_fractions else 0


def _is_fraction(value: Any) -> bool:
    """Return whether a value of a list is of a type that has no names of classes."""
    return isinstance(value, bool | float)


def _names(values: tuple[Any, ...], where: str) -> tuple[str, ...]:
    shown = f"the list {json.dumps(values, ensure_ascii=False, default=str)[:80]}"
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
