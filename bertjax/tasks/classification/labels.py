"""Labels of texts: parsing them from tables, and collecting those of a training set."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

from bertjax.errors import check
from bertjax.number_text import whole_number
from bertjax.tasks.classification.glue import GlueTask, glue_label
from bertjax.tasks.classification.label_lists import parse_list
from bertjax.tasks.classification.label_values import check_spelling, class_name
from bertjax.tasks.classification.list_texts import Listed, is_list_text
from bertjax.tasks.examples import TextExample
from bertjax.tasks.files.missing import is_missing

LabelType = Literal["class", "classes", "number"]
"""Type of a text's label: one class, any number of classes, or a number."""
Label = str | float | tuple[str, ...] | None
"""A class, a number or a set of classes; None if there is no label."""
Parsed = str | float | Listed | None
"""A label, or what a list has: `ListedClasses` makes classes of this when all lists are known."""
LabelParser = Callable[[Any, str], Parsed]
"""A function from a table's value to its label; its second argument is for error messages."""


def label_parser(glue: GlueTask | None, label_type: LabelType, separator: str) -> LabelParser:
    """Return the function that parses the labels of the GLUE task, or else labels of this type.

    `separator` is the text between several classes.
    """
    if glue is not None:
        return partial(glue_label, glue)
    parsers: dict[LabelType, LabelParser] = {
        "class": _parse_class,
        "classes": partial(parse_list, separator),
        "number": _parse_number,
    }
    return parsers[label_type]


def _parse_class(value: Any, where: str) -> str | None:
    if is_missing(value):
        return None
    check(
        not isinstance(value, list)
        and not (isinstance(value, str) and is_list_text(value.strip())),
        where=where,
        found=f"the list {str(value)[:80]}",
        expected="one class (or finetune.label_type classes)",
    )
    return class_name(value, where)


def _parse_number(value: Any, where: str) -> float | None:
    if is_missing(value):
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
    """Return the classes that occur; sorted as numbers if all are whole numbers, else as text.

    Raises `UserError` for two labels that are one number, such as 1 and 1.0.
    """
    labels = set(all_classes(examples))
    check_spelling(labels, (), "the labels of training")
    # isdecimal and not isdigit, which is true for ² too, and `int` refuses that.
    numbers = {}
    for label in labels:
        if label.removeprefix("-").isdecimal():
            numbers[label] = whole_number(label)
    if len(numbers) < len(labels) or None in numbers.values():
        return tuple(sorted(labels))
    # By the text too: 1 and 01 are two classes, and a set has no order.
    return tuple(sorted(labels, key=lambda label: (numbers[label], label)))
