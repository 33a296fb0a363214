"""Labels of a tagging task, and a check that training tags follow the rules of their scheme."""

from collections.abc import Iterable, Iterator, Sequence

from bertjax.errors import mismatch
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.tagging.entity_metrics import broken, scheme_of

OUTSIDE = "O"
"""The tag of words that are not part of an entity."""

Tags = tuple[str, ...]
"""The tags of a sentence, one for each word."""


def all_tags(examples: Iterable[TaggedExample]) -> Iterator[str]:
    """Yield the tags of all sentences, one after another."""
    for example in examples:
        yield from example.tags or ()


def labels_of(examples: Iterable[TaggedExample]) -> Tags:
    """Return the tags that occur, sorted, O first."""
    return tuple(sorted(set(all_tags(examples)), key=lambda tag: (tag != OUTSIDE, tag)))


def check_rules(examples: Sequence[TaggedExample]) -> None:
    """Raise `UserError` with sentence, word and tag if a tag breaks the rules of the scheme.

    `scheme_of` finds the scheme. IOB1, and tags that are not tags of entities, have no rules.
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
