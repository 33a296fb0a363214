"""Cells that hold a list as another program writes it: JSON, Python, NumPy, PyTorch, pandas."""

import ast
import json
import re
from typing import Any, NamedTuple

from bertjax.errors import check, mismatch

NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
ITEM = rf"(?:{QUOTED}|{NUMBER}|[Tt]rue|[Ff]alse|None|null)"
ITEMS = rf"\s*{ITEM}\s*(?:,\s*{ITEM}\s*)*,?\s*"
LIST = re.compile(rf"\[(?:{ITEMS}|\s*)\]")
TUPLE = re.compile(rf"\((?:{ITEMS}|\s*)\)")
SET = re.compile(rf"\{{{ITEMS}\}}")
"""What JSON or Python writes for quoted texts and numbers. The empty set is `set()` in Python."""
SET_CALL = re.compile(r"(?:frozen)?set\((.*)\)", re.DOTALL)
CALL = re.compile(r"[A-Za-z_][\w.]*(?=\()")
"""The name of what Python would call, as in `tensor([0, 1])`; or one as in `O(1)`."""
PROGRAM = re.compile(
    r"(?:numpy|np|torch|tf|jax|jnp|pandas|pd|datetime|collections)\.[\w.]+"
    r"|[Tt]ensor|EagerTensor|[Aa]rray|masked_array|DeviceArray|dict|frozenset|range"
    r"|(?:u?int|float|bfloat|complex|bool|str|bytes)(?:\d+|_)"
)
"""Names before a bracket that only programs write: `np.int64(0)`, `tensor(1.)`."""
OBJECT = re.compile(r"<[^<>]*[=,][^<>]*>")
"""An object as Python shows it: `<tf.Tensor: shape=(2,), dtype=int32>`."""
OPENING, CLOSING, QUOTES = "([{", ")]}", "'\""
ARRAY_ITEM = re.compile(rf"(?:{NUMBER}(?:[eE][+-]?\d+)?|[Tt]rue|[Ff]alse|nan|None)", re.IGNORECASE)
"""An item of an array of NumPy, which has spaces between them: `[0. 1.]`."""

ARRAY = re.compile(rf"\[\s*{ARRAY_ITEM.pattern}(?:\s+{ARRAY_ITEM.pattern})+\s*\]", re.IGNORECASE)


class Listed(NamedTuple):
    """What a value lists."""

    values: tuple[Any, ...]
    has_order: bool = True
    """False for a set, whose items are names: they have no places."""
    is_empty_cell: bool = False
    """True for an empty text, which is no class among names, and missing among places."""


def written_list(text: str, where: str) -> Listed | None:
    """Return what a text lists, if it is a list, a tuple or a set of texts and numbers; else None.

    Raises `UserError` for such a text that neither JSON nor Python can read.
    """
    call = SET_CALL.fullmatch(text)
    if call:
        inner = call[1].strip()
        is_read = not inner or any(form.fullmatch(inner) for form in (LIST, TUPLE, SET))
        return Listed(_literal(inner, where), has_order=False) if is_read else None
    if SET.fullmatch(text):
        return Listed(_literal(text, where), has_order=False)
    if LIST.fullmatch(text):
        return Listed(_literal(text, where))
    if TUPLE.fullmatch(text):
        inner = text[1:-1].strip()
        # What has no comma, as (1), is no tuple; ('a') is a text to Python, but one of a list.
        if not inner or set(inner) & set("," + QUOTES):
            return Listed(_literal(text, where))
    return None


def _literal(text: str, where: str) -> tuple[Any, ...]:
    # As a list: a set would drop what it has twice, and a text alone is no tuple.
    inside = f"[{text[1:-1]}]"
    try:
        return tuple(json.loads(inside))
    except ValueError:
        pass
    try:
        return tuple(ast.literal_eval(inside))
    except (ValueError, SyntaxError) as error:
        raise mismatch(
            where=where, found=f"the list {text[:80]}", expected="one of JSON or Python"
        ) from error


def check_no_other_value(text: str, separator: str, where: str) -> None:
    """Raise `UserError` for a text that another program wrote for a value, but no list.

    Parted at the separator it would give classes such as `tensor([0`. A name with brackets in or
    around it is a name: `[PER]`, `O(1)`, `(18)`, `Sports (indoor), News`.
    """
    check(
        not _is_other_value(text, separator),
        where=where,
        found=f"the label {text[:80]!r}",
        expected=f"a list with commas and quotes, or names with {separator!r} between them",
    )


def _is_other_value(text: str, separator: str) -> bool:
    if OBJECT.fullmatch(text):
        return True
    call = CALL.match(text)
    bracketed = text[call.end() :] if call else text
    if bracketed[:1] not in tuple(OPENING):
        return False
    # No name begins like this, also where the text was cut off: ['a', 'b
    first = bracketed[1:].lstrip()[:1]
    if first in tuple(QUOTES) or (call and first in ("[", "{")):
        return True
    if not _closes_at_end(bracketed):
        return False
    inner = bracketed[1:-1]
    # Its parts would have half of the brackets each.
    if separator in inner:
        return True
    if call:
        return PROGRAM.fullmatch(call[0]) is not None
    if text.startswith("{") or "," in inner or set(inner) & set(QUOTES + OPENING + CLOSING + "="):
        return True
    # Numbers, as in [0 1 0]; a tuple of them would have commas.
    items = re.split(r"[\s,]+", inner.strip())
    return text.startswith("[") and all(ARRAY_ITEM.fullmatch(item) for item in items)


def _closes_at_end(text: str) -> bool:
    """Return whether the first bracket closes with the last character, by any other bracket.

    Intervals may have two kinds of brackets: (0, 10].
    """
    depth = 0
    for place, character in enumerate(text, 1):
        if character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth -= 1
            if depth == 0:
                return place == len(text)
    return False


def is_list_text(text: str) -> bool:
    """Return whether a text that should be one class is a list of several, or of places.

    A single number in brackets may be a name, and so may numbers in round ones, such as (18, 24).
    """
    if LIST.fullmatch(text):
        return bool(set(text) & set(",'\""))
    call = SET_CALL.fullmatch(text)
    if call or TUPLE.fullmatch(text) or SET.fullmatch(text):
        inner = call[1].strip() if call else text
        items = re.split(r"[\s,]+", inner[1:-1].strip(" ,"))
        return bool(set(text) & set("'\"")) or (len(items) > 1 and set(items) <= _BITS)
    return ARRAY.fullmatch(text) is not None or re.match(rf"{CALL.pattern}\(\[", text) is not None


_BITS = {"0", "1", "0.", "1.", "0.0", "1.0", "True", "False"}
