"""Questions that can be trained on: their answers are in the paragraph where they say."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bertjax.errors import check
from bertjax.tasks.examples import QuestionExample

MAX_MISPLACED = 0.1
"""Share of the training answers that may be elsewhere than they say; these are left out."""
UTF16 = "utf-16-le"  # without a byte order mark

log = logging.getLogger("bertjax")


class LocatedQuestion(NamedTuple):
    """A question and its place in a file."""

    where: str
    """The place for error messages, such as FILE: data[3].paragraphs[0].qas[2]."""
    example: QuestionExample


def usable(
    questions: Iterable[LocatedQuestion],
    name: str,
    training: bool,
    place_of_id: dict[str, str] | None = None,
) -> list[QuestionExample]:
    """Check the questions and return them; with `training` only those that can be trained on.

    `place_of_id` has the places of the questions in other files whose ids must not come again, and
    gets those of this file.
    """
    place_of_id = {} if place_of_id is None else place_of_id
    kept: list[QuestionExample] = []
    misplaced: list[_Misplaced] = []
    total, answers_in_all, left_out = 0, 0, 0
    for where, example in questions:
        total += 1
        # Official scripts and predictions know a question by its id alone.
        before = place_of_id.setdefault(example.id, where)
        check(
            before == where,
            where=where,
            found=f"the id {example.id} again, after {before}",
            expected="it once",
        )
        if not training:
            kept.append(example)
            continue
        check(
            example.answers is not None,
            where=where,
            found="no answers",
            expected="answers, to train on",
        )
        answers = example.answers or ()
        # run_squad.py also leaves out training answers that it cannot find in the paragraph.
        located = _located(example, misplaced)
        answers_in_all += len(answers)
        if answers and not located:
            left_out += 1
        else:
            kept.append(QuestionExample(example.id, example.question, example.context, located))
    check(total > 0, where=name, found="no question", expected="one or more")
    if misplaced:
        _check_few(misplaced, answers_in_all, name)
        log.warning(
            "%s: %s; they are left out, and with them questions: %d of %d",
            name,
            _described(misplaced, answers_in_all),
            left_out,
            total,
        )
    return kept


class _Misplaced(NamedTuple):
    """An answer that is not where it says."""

    id: str
    """The id of the question."""
    unit: str
    """What its start was counted in, if that explains it; else empty."""


def _located(example: QuestionExample, misplaced: list[_Misplaced]) -> tuple[tuple[str, int], ...]:
    """Return the answers that are at their start in the paragraph; add the others to a list."""
    located = []
    for text, start in example.answers or ():
        answer = locate(example.context, text, start)
        if answer is None:
            misplaced.append(_Misplaced(example.id, counted_in(example.context, text, start)))
        else:
            located.append(answer)
    return tuple(located)


def counted_in(context: str, text: str, start: int) -> str:
    """Return the unit in which `start` is the place of `text`; empty if no unit explains it."""
    if start < 0 or not text.strip():
        return ""
    for unit, encoding, width in (("bytes of UTF-8", "utf-8", 1), ("units of UTF-16", UTF16, 2)):
        if context.encode(encoding).startswith(text.encode(encoding), width * start):
            return unit
    short, long = context.replace("\r\n", "\n"), context.replace("\n", "\r\n")
    if "\r\n" in context and short.startswith(text.replace("\r\n", "\n"), start):
        return "characters, with a line end of two as one"
    if "\r\n" not in context and long.startswith(text.replace("\n", "\r\n"), start):
        return "characters, with a line end as two"
    return ""


def _check_few(misplaced: Sequence[_Misplaced], answers: int, name: str) -> None:
    """Raise `UserError` if more answers are misplaced than a published set has mistakes."""
    check(
        len(misplaced) <= MAX_MISPLACED * answers,
        where=name,
        found=_described(misplaced, answers),
        expected=f"at most {MAX_MISPLACED:.0%}, and each start counted in characters, from 0",
    )


def _described(misplaced: Sequence[_Misplaced], answers: int) -> str:
    """Return how many answers are not where they say, and what may be the reason."""
    first = f"{len(misplaced)} of {answers} answers that are not where they say"
    text = f"{first} (first of the question {misplaced[0].id}"
    unit, count = Counter(each.unit for each in misplaced).most_common(1)[0]
    if unit:
        text += f"; {count} would be right if counted in {unit}"
    return f"{text})"


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
