"""Labels of texts: parsing them from tables, and collecting those of a training set."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

from bertjax.errors import check
from bertjax.tasks.classification.glue import GlueTask, glue_label
from bertjax.tasks.examples import TextExample

LabelType = Literal["class", "classes", "number"]
"""Type of a text's label: one class, any number of classes, or a number."""
Label = str | float | tuple[str, ...] | None
"""A class, a number or a set of classes; None if there is no label."""
LabelParser = Callable[[Any, str], Label]
"""A function from a table's value to its label; its second argument is for error messages."""


def label_parser(glue: GlueTask | None, label_type: LabelType, separator: str) -> LabelParser:
    """Return the function that parses the labels of the GLUE task, or else labels of this type.

    `separator` is the text between several classes.
    """
    if glue is not None:
        return partial(glue_label, glue)
    parsers: dict[LabelType, LabelParser] = {
        "class": _parse_class,
        "classes": partial(_parse_classes, separator),
        "number": _parse_number,
    }
    return parsers[label_type]


def _parse_class(value: Any, where: str) -> str | None:
    if value is None:
        return None
    return _class_name(value, where) or None


def _parse_classes(separator: str, value: Any, where: str) -> tuple[str, ...] | None:
    """Return the classes in the order of the text, each once; () for an empty text."""
    if value is None:
        return None
    parts = value if isinstance(value, list) else str(value).split(separator)
    names = [_class_name(part, where) for part in parts]
    return tuple(dict.fromkeys(name for name in names if name))


def _parse_number(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    # bool is a subclass of int, but in JSON true is not a number.
    is_numeric = isinstance(value, str | int | float) and not isinstance(value, bool)
    try:
        number = float(value) if is_numeric else math.nan
    # JSON's integers have no limit, but `float` raises OverflowError above 1.8e308.
    except (ValueError, OverflowError):
        number = math.nan
    check(math.isfinite(number), where=where, found=f"the label {value!r}", expected="a number")
    return number


def _class_name(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"  # as JSON spells them
    check(
        isinstance(value, str | int | float),
        where=where,
        found=f"a label of type {type(value).__name__}",
        expected="text or a number",
    )
    return str(value).strip()


def classes_of(example: TextExample) -> tuple[str, ...]:
    """Return the classes of an example: none, one or several."""
    if isinstance(example.label, tuple):
        return example.label
    return () if example.label is None else (str(example.label),)


def all_classes(examples: Iterable[TextExample]) -> Iterator[str]:
    """Yield the classes of all examples, one after another."""
    for example in examples:
        yield from classes_of(example)


def labels_of(examples: Iterable[TextExample]) -> tuple[str, ...]:
    """Return the classes that occur; sorted as numbers if all are whole numbers, else as text."""
    labels = set(all_classes(examples))
    # isdecimal and not isdigit, which is true for ² too, and `int` refuses that.
    if all(label.removeprefix("-").isdecimal() for label in labels):
        # By the text too: 1 and 01 are two classes, and a set has no order.
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))
