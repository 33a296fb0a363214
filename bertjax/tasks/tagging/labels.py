"""Tags of training sentences: their labels, and a check of the rules of their scheme."""

from collections.abc import Iterable, Iterator, Sequence

from bertjax.errors import mismatch
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.tagging.entity_metrics import broken, scheme_of

OUTSIDE = "O"
"""The tag of words that are part of no entity."""

Tags = tuple[str, ...]
"""The tags of a sentence, one a word."""


def all_tags(examples: Iterable[TaggedExample]) -> Iterator[str]:
    """Yield the tags of all sentences, one after another."""
    for example in examples:
        yield from example.tags or ()


def labels_of(examples: Iterable[TaggedExample]) -> Tags:
    """Return the tags that occur, sorted, O first."""
    return tuple(sorted(set(all_tags(examples)), key=lambda tag: (tag != OUTSIDE, tag)))


def check_rules(examples: Sequence[TaggedExample]) -> None:
    """Raise `UserError` naming sentence, word and tag where tags break the rules of their scheme.

    The scheme is the one that most of them are in (`scheme_of`). IOB1 has no rules that can be
    broken, nor have tags that are not of entities.
    """
    scheme = scheme_of(example.tags or () for example in examples)
    if scheme is None:
        return
    for example in examples:
        violation = broken(example.tags or (), scheme)
        if violation:
            word = example.words[violation.word]
            raise mismatch(
                where=f"sentence {example.id}, word {violation.word + 1} {word!r}",
                found=f"{violation.tag} after {violation.before}",
                expected=f"a sequence by the rules of {scheme}",
            )
