"""Values from JSON files become dataclasses, or are refused with their field."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest

from bertjax.errors import UserError
from bertjax.json_values import record, shown, value_of


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Outer:
    kind: ClassVar[str] = "outer"
    name: str
    share: float
    parts: dict[str, Inner]
    pairs: tuple[tuple[int, ...], ...] = ()
    mode: Literal["a", "b"] = "a"
    limit: int | None = None
    counts: list[int] = field(default_factory=list)
    whatever: Any = None
    is_on: bool = False


RIGHT = {"name": "x", "share": 1, "parts": {"p": {"size": 2}}}


def test_right_values_become_the_dataclass():
    made = record(Outer, {**RIGHT, "pairs": [[1, 2], []], "limit": 3, "mode": "b"}, "f")
    assert made == Outer("x", 1.0, {"p": Inner(2)}, ((1, 2), ()), "b", 3)
    assert isinstance(made.share, float)
    assert record(Outer, {**RIGHT, "limit": None, "whatever": [1], "counts": [1]}, "f").counts == [
        1
    ]


@pytest.mark.parametrize("change,message", [
    ({"name": 1}, "f: name: found 1, expected a value of type str"),
    ({"name": None}, "f: name: found None"),
    ({"share": "1"}, "f: share: found '1', expected a value of type float"),
    ({"share": True}, "f: share: found True"),
    ({"share": float("nan")}, "f: share: found nan, expected a finite number"),
    ({"share": 10**400}, "f: share: found an integer of 1329 bits"),
    ({"limit": 2**64}, "f: limit: found an integer of 65 bits"),
    ({"limit": 1.0}, "f: limit: found 1.0, expected a value of type int"),
    ({"limit": False}, "f: limit: found False"),
    ({"parts": []}, "f: parts: found a list of 0, expected an object"),
    ({"parts": {"p": 1}}, "f: parts: p: found 1, expected an object"),
    ({"parts": {"p": {}}}, "f: parts: p: found no field size, expected one"),
    ({"parts": {"p": {"size": 1, "sizes": 1}}}, "f: parts: p: found the field 'sizes', expected one of size; the nearest is size"),
    ({"pairs": 3}, "f: pairs: found 3, expected a list"),
    ({"pairs": [[1], ["x"]]}, "f: pairs[1][0]: found 'x'"),
    ({"mode": "c"}, "f: mode: found 'c', expected one of a, b"),
    ({"mode": []}, "f: mode: found a list of 0"),
    ({"is_on": 1}, "f: is_on: found 1, expected a value of type bool"),
    ({"kind": "x"}, "f: found the field 'kind'"),
])  # fmt: skip
def test_other_values_are_refused_with_their_field(change, message):
    with pytest.raises(UserError) as refused:
        record(Outer, {**RIGHT, **change}, "f")
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("values", [None, 1, "x", [], [RIGHT]])
def test_what_is_no_object_is_refused(values):
    with pytest.raises(UserError, match="f: found .*, expected an object"):
        record(Outer, values, "f")


def test_what_is_shown_is_short_and_on_one_line():
    assert shown("a\nb" * 100) == shown("a\nb" * 200)
    assert len(shown("a" * 1000)) == 80
    assert shown(10**5000) == "an integer of 16610 bits"
    assert value_of(dict[str, int], {"a": 1}, "f") == {"a": 1}
