"""Labels of a tagging task, and checks of the tags of its splits."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bertjax.errors import excerpt, mismatch
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.tagging.schemes import (
    Scheme,
    broken,
    differing_scheme,
    parts_by_tag,
    prefixes_of_scheme,
    scheme_of,
)
from bertjax.tasks.tagging.tag_form import OUTSIDE, OUTSIDE_PARTS, TagForm, form_of, misfits

log = logging.getLogger("bertjax")

Tags = tuple[str, ...]
"""The tags of a sentence, one for each word."""
SHOWN = 8
"""Maximum number of tags or types that a message names."""
OVER_WORDS = " (or --finetune.metric accuracy, over words)"
"""The option for tags that are not of entities, at the end of a message."""


def all_tags(examples: Iterable[TaggedExample]) -> Iterator[str]:
    """Yield the tags of all sentences, one after another."""
    for example in examples:
        yield from example.tags or ()


def labels_of(examples: Iterable[TaggedExample]) -> Tags:
    """Return the tags that occur, sorted, O first."""
    return tuple(sorted(set(all_tags(examples)), key=lambda tag: (tag != OUTSIDE, tag)))


def check_rules(examples: Sequence[TaggedExample]) -> None:
    """Raise `UserError` with sentence, word and tag if a tag breaks the rules of the scheme.

    `scheme_of` finds the scheme. IOB1, IOE1, and tags that are not tags of entities, have no rules.
    """
    sequences = [example.tags or () for example in examples]
    form = form_of(all_tags(examples))
    scheme = scheme_of(sequences, form)
    if scheme is None:
        return
    for example in examples:
        violation = broken(example.tags or (), scheme, form)
        if violation:
            raise mismatch(
                where=_where(example, violation.word),
                found=f"{violation.tag} after {violation.before}",
                expected=f"a sequence by the rules of {scheme}{OVER_WORDS}",
            )


def check_all_entities(examples: Sequence[TaggedExample]) -> None:
    """Raise `UserError` with sentence and word if some tags are of entities, but not all.

    The figures would be over words, and the tags show that entities were meant.
    """
    expected = f"O or a tag with B, I and so on, as others have{OVER_WORDS}"
    _check_none_of(dict.fromkeys(misfits(all_tags(examples)), expected), examples)


def describe(name: str, labels: Tags, scheme: Scheme | None) -> str:
    """Return a line about a training set's tags: their scheme and types, or that they have none."""
    if scheme is None:
        return (
            f"{name}: the tags {shown(labels)} are no tags of entities (B-PER, B_PER, PER-B),"
            " so the figure is accuracy over words"
        )
    return (
        f"{name}: tags of entities in the scheme {scheme}, with the types {shown(types_of(labels))}"
    )


def types_of(labels: Iterable[str], form: TagForm | None = None) -> tuple[str, ...]:
    """Return the types of entities that the tags have, sorted; `form` is by default their own."""
    types = {parts.type for parts in parts_by_tag(labels, form).values()}
    return tuple(sorted(types - {OUTSIDE_PARTS.type}))


def shown(names: Iterable[str]) -> str:
    """Return the names in one line, sorted; if there are many, the first ones and their number."""
    ordered = sorted(names)
    if len(ordered) <= SHOWN:
        return ", ".join(ordered) or "none"
    return f"{', '.join(ordered[:SHOWN])} and {len(ordered) - SHOWN} more"


def unknown_tags(examples: Iterable[TaggedExample], labels: Iterable[str]) -> Counter[str]:
    """Return how many words have each tag that is not one of `labels`."""
    known = set(labels)
    return Counter(tag for tag in all_tags(examples) if tag not in known)


def check_unknown_tags(name: str, examples: Sequence[TaggedExample], labels: Tags) -> None:
    """Log the tags that training has not; they are never predicted, and are not in the loss.

    Raises `UserError` with sentence and word if the task is of entities and such a tag is not, for
    no entity could be counted there. It is also raised if no type of entity, or no tag of another
    kind, is one of training: then the tags are of another data set or are spelled otherwise.
    """
    unknown = unknown_tags(examples, labels)
    if not unknown:
        return
    form = form_of(labels)
    misfitting = [tag for tag in unknown if form and form.parts(tag) is None]
    expected = f"a tag of an entity, as those of the training set: {shown(labels)}"
    _check_none_of(dict.fromkeys(misfitting, expected), examples, f"{name}: ")
    first = next(example for example in examples if not set(example.tags or ()) <= set(labels))
    known, present = set(labels), set(all_tags(examples))
    if form:
        known, present = set(types_of(known, form)), set(types_of(present, form))
    if present and not present & known:
        what = "types" if form else "tags"
        raise mismatch(
            where=f"{name}: sentence {first.id}",
            found=f"the {what} {shown(present)} alone",
            expected=f"{what} of training: {shown(known)}",
        )
    log.warning(
        "%s: %s of %s words have tags that the training set does not have (%s), first in sentence"
        " %s; they are never predicted and are left out of the loss",
        name,
        f"{unknown.total():,}",
        f"{sum(len(example.words) for example in examples):,}",
        shown(unknown),
        first.id,
    )


def check_same_form(
    name: str, examples: Sequence[TaggedExample], labels: Tags, scheme: Scheme | None
) -> None:
    """Raise `UserError` unless tags of entities are written as those of training, in their scheme.

    Otherwise the entities could be right where every tag is wrong, and figures would disagree. With
    `scheme`, that of training, the scheme of all tags is compared too. `check_unknown_tags` comes
    first: here all tags have the form of training.
    """
    form = form_of(labels)
    if form is None:
        return
    written = {parts: tag for tag, parts in parts_by_tag(labels, form).items()}
    prefixes = prefixes_of_scheme({parts.prefix for parts in written})
    expected = {}
    for tag in unknown_tags(examples, labels):
        parts = form.parts(tag)
        if parts in written:
            expected[tag] = f"{excerpt(written[parts])}, as the training set writes it"
        elif parts and parts.prefix not in prefixes:
            expected[tag] = f"a tag in the scheme of the training set: {shown(labels)}"
    _check_none_of(expected, examples, f"{name}: ")
    other_scheme = differing_scheme([example.tags or () for example in examples], scheme, form)
    if other_scheme:
        raise mismatch(
            where=f"{name}: the split with sentence {examples[0].id}",
            found=f"tags in the scheme {other_scheme}",
            expected=f"{scheme}, as in the training set",
        )


def _check_none_of(
    expected: Mapping[str, str], examples: Iterable[TaggedExample], prefix: str = ""
) -> None:
    """Raise `UserError` at the first word whose tag is a key of `expected`.

    The values say what was expected in place of each tag. The message begins with `prefix`.
    """
    for example in examples:
        for word, tag in enumerate(example.tags or ()):
            if tag in expected:
                raise mismatch(
                    where=f"{prefix}{_where(example, word)}",
                    found=f"the tag {excerpt(tag)}",
                    expected=expected[tag],
                )


def _where(example: TaggedExample, word: int) -> str:
    return f"sentence {example.id}, word {word + 1} {excerpt(example.words[word])}"
