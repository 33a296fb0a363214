"""Types of examples, one for each kind of task; they do not depend on the format of the file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextExample:
    """A sentence or a pair of sentences, with its label."""

    id: str
    text: str
    pair: str | None = None
    """The second sentence; None for a single sentence."""
    label: str | float | tuple[str, ...] | None = None
    """A class, a number, or a set of classes; None if the label is not known."""
    classes: tuple[str, ...] = ()
    """All classes, where the data have a place or a column for each; else empty."""


@dataclass(frozen=True)
class TaggedExample:
    """A sentence of words, each with a tag."""

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    """One tag for each word; None if the tags are not known."""
    lines: tuple[str, ...] = ()
    """The words' lines in the CoNLL file, for output in its format; empty for other sources."""
    columns: tuple[int | None, ...] = ()
    """The columns of words and of tags that were found in the CoNLL file; empty for other sources.

    None for a column that an option gives, and for that of tags if they are not read.
    """


@dataclass(frozen=True)
class QuestionExample:
    """A question on a paragraph, with its right answers."""

    id: str
    question: str
    context: str
    """The paragraph."""
    answers: tuple[tuple[str, int], ...] | None = None
    """The right answers, each with its text and its first character's index in `context`.

    Empty if the question has no answer; None if the answers are not known.
    """


@dataclass(frozen=True)
class ChoiceExample:
    """A beginning and several possible endings, one of them right."""

    id: str
    context: str
    endings: tuple[str, ...]
    start: str = ""
    """Text at the beginning of every ending."""
    label: int | None = None
    """Number of the right ending, from 0; None if it is not known."""


@dataclass(frozen=True)
class PairExample:
    """A source text and the target text to generate for it."""

    id: str
    source: str
    target: str | None = None
