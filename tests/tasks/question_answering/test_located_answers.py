"""Answers in their paragraphs: where they are found, and where not."""

import pytest

from bertjax.tasks.question_answering.located_answers import locate


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
