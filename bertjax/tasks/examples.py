"""Examples of the kinds of task, whatever file they come from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextExample:
    """A sentence or a pair of sentences, with its label."""

    id: str
    text: str
    pair: str | None = None
    """The second sentence of a pair."""
    label: str | float | tuple[str, ...] | None = None
    """A class; a number; a set of classes; None if it is not known."""


@dataclass(frozen=True)
class TaggedExample:
    """A sentence of words, each with a tag."""

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    """One a word; None if they are not known."""
    lines: tuple[str, ...] = ()
    """The words' lines as the file has them, for output in its format; empty for other sources."""


@dataclass(frozen=True)
class QuestionExample:
    """A question on a paragraph, with its right answers."""

    id: str
    question: str
    context: str
    """The paragraph."""
    answers: tuple[tuple[str, int], ...] | None = None
    """The right answers: text, and the character of `context` where it begins.

    Empty if there is no answer; None if it is not known.
    """


@dataclass(frozen=True)
class ChoiceExample:
    """A beginning and several possible endings, one of them right."""

    id: str
    context: str
    endings: tuple[str, ...]
    start: str = ""
    """The text that each ending begins with."""
    label: int | None = None
    """The right ending, from 0; None if it is not known."""


@dataclass(frozen=True)
class PairExample:
    """A source text and the target text to generate for it."""

    id: str
    source: str
    target: str | None = None
