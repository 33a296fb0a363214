"""The examples that tasks read, whatever file they come from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextExample:
    """A sentence, or a pair of them, and what is to be said of it."""

    id: str
    text: str
    pair: str | None = None
    label: str | float | tuple[str, ...] | None = None
    """A class; a number; several classes at once; None where it is not known."""


@dataclass(frozen=True)
class TaggedExample:
    """A sentence of words, each with a tag."""

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    lines: tuple[str, ...] = ()
    """The words' lines as the file has them, for output in its format; empty where it was no file
    of lines.
    """


@dataclass(frozen=True)
class QuestionExample:
    """A question on a paragraph."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None = None
    """(text, where it begins in `context`, in characters), each of them right; empty where there is
    no answer; None where it is not known.
    """


@dataclass(frozen=True)
class ChoiceExample:
    """A beginning and several ways to go on."""

    id: str
    context: str
    endings: tuple[str, ...]
    start: str = ""
    """What each ending begins with."""
    label: int | None = None
    """The right ending, from 0; None where it is not known."""


@dataclass(frozen=True)
class PairExample:
    """A text and what it is to become."""

    id: str
    source: str
    target: str | None = None
