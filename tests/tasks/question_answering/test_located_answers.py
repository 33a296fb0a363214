"""Answers in their paragraphs: where they are found, and where not."""

import pytest

from bertjax.errors import UserError
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.located_answers import (
    LocatedQuestion,
    counted_in,
    locate,
    usable,
)


@pytest.mark.parametrize("text,start,result", [
    ("John", 4, ("John", 4)),
    (" John ", 4, ("John", 4)),
    ("John", 3, ("John", 4)),
    (" John", 3, ("John", 4)),
    ("John Smith", 4, ("John\n Smith", 4)),
    ("John  Smith\t", 2, ("John\n Smith", 4)),
    ("Smith", 4, None),
    ("John", 5, None),
    ("John", -5, None),
    ("John", 400, None),
    (" ", 3, None),
    ("", 3, None),
])  # fmt: skip
def test_an_answer_may_differ_in_white_space_alone(text, start, result):
    assert locate("Ab \tJohn\n Smith", text, start) == result


@pytest.mark.parametrize("context,text,begin", [
    ("😀😀 Paris is a city", "Paris", 3),
    ("北京是首都", "北", 0),
    ("é 北京", "京", 3),
    ("one\r\ntwo\r\nthree", "three", 10),
    ("one\ntwo", "two", 4),
])  # fmt: skip
def test_a_start_counts_code_points(context, text, begin):
    assert locate(context, text, begin) == (text, begin)
    assert context.index(text) == begin


@pytest.mark.parametrize("context,text,start,unit", [
    ("😀😀 Paris is a city", "Paris", 5, "units of UTF-16"),
    ("😀😀 Paris is a city", "Paris", 9, "bytes of UTF-8"),
    ("首都是北京", "北京", 9, "bytes of UTF-8"),
    ("a\r\nb\r\nc three", "three", 6, "characters, with a line end of two as one"),
    ("a\nb\nc three", "three", 8, "characters, with a line end as two"),
    ("the city Paris", "Paris", 8, ""),
    ("the city Paris", "Paris", -5, ""),
    ("the city Paris", " ", 2, ""),
    ("é", "x", 99, ""),
])  # fmt: skip
def test_another_way_to_count_is_told(context, text, start, unit):
    assert counted_in(context, text, start) == unit


def asked(number, context, text, start):
    example = QuestionExample(f"q{number}", "?", context, ((text, start),))
    return LocatedQuestion(f"f: {number}", example)


def test_starts_that_another_program_counted_are_refused_by_the_unit():
    right = [asked(number, "Paris is a city", "city", 11) for number in range(5)]
    wrong = [asked(9 + number, "😀 Paris", "Paris", 3) for number in range(2)]
    with pytest.raises(UserError) as error:
        usable([*right, *wrong], "f", True)
    assert str(error.value) == (
        "f: found 2 of 7 answers that are not where they say (first of the question q9; 2 would be"
        " right if counted in units of UTF-16), expected at most 10%, and each start counted in"
        " characters, from 0"
    )
    assert len(usable([*right, *wrong], "f", False)) == 7


def test_an_id_may_be_known_from_another_file():
    known = {}
    usable([asked(1, "a b", "a", 0)], "f", False, known)
    with pytest.raises(UserError, match="f: 1: found the id q1 again, after g: 1"):
        usable([asked(1, "a b", "a", 0)], "f", False, {"q1": "g: 1"})
    assert known == {"q1": "f: 1"}
