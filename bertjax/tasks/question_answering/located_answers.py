"""Questions that can be trained on: their answers are in the paragraph where they say."""

import logging
import re
from collections.abc import Iterable
from typing import NamedTuple

from bertjax.errors import check
from bertjax.tasks.examples import QuestionExample

log = logging.getLogger("bertjax")


class LocatedQuestion(NamedTuple):
    """A question and its place in a file."""

    where: str
    """The place for error messages, such as FILE: data[3].paragraphs[0].qas[2]."""
    example: QuestionExample


def usable(
    questions: Iterable[LocatedQuestion], name: str, training: bool
) -> list[QuestionExample]:
    """Check the questions and return them; with `training` only those that can be trained on."""
    usable: list[QuestionExample] = []
    place_of_id: dict[str, str] = {}
    misplaced: list[str] = []  # the question's id for each answer
    left_out = 0
    for where, example in questions:
        # Official scripts and predictions know a question by its id alone.
        before = place_of_id.setdefault(example.id, where)
        check(
            before == where,
            where=where,
            found=f"the id {example.id} again, after {before}",
            expected="it once",
        )
        if not training:
            usable.append(example)
            continue
        check(
            example.answers is not None,
            where=where,
            found="no answers",
            expected="answers, to train on",
        )
        answers = example.answers or ()
        # run_squad.py also leaves out training answers that it cannot find in the paragraph.
        located = _located(example.context, answers)
        misplaced += [example.id] * (len(answers) - len(located))
        if answers and not located:
            left_out += 1
        else:
            usable.append(QuestionExample(example.id, example.question, example.context, located))
    total = len(place_of_id)
    if misplaced:
        log.warning(
            "%s: answers that are not where they say: %d, of the question %s first;"
            " questions left out: %d of %d",
            name,
            len(misplaced),
            misplaced[0],
            left_out,
            total,
        )
    check(total > 0, where=name, found="no question", expected="one or more")
    check(
        usable,
        where=name,
        found=f"no answer of {total} questions where it says",
        expected="answers to train on",
    )
    return usable


def _located(context: str, answers: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Return the answers that `locate` finds at their start in the paragraph."""
    located = []
    for text, start in answers:
        answer = locate(context, text, start)
        if answer is not None:
            located.append(answer)
    return tuple(located)


def locate(context: str, text: str, start: int) -> tuple[str, int] | None:
    """Return (text, begin) of the answer in `context`; None if the answer is not at `start`.

    The white space in `context` may differ from that in `text`, and there may be white space
    between `start` and the answer.
    """
    words = text.split()
    if not words or not 0 <= start < len(context):
        return None
    # An answer with white space at an end is left to the pattern, which takes it without.
    if context.startswith(text, start) and text == text.strip():
        return text, start
    pattern = r"\s*(" + r"\s+".join(re.escape(word) for word in words) + ")"
    match = re.compile(pattern).match(context, start)
    return (match[1], match.start(1)) if match else None
