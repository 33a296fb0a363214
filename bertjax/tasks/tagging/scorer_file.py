"""Gold and predicted tags side by side, one word a line: the input of the scorer conlleval."""

import re
from collections.abc import Iterable, Iterator, Sequence

from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.tagging.entity_metrics import entities
from bertjax.tasks.tagging.labels import Tags
from bertjax.tasks.tagging.tag_form import OUTSIDE, TagForm, form_of

BOUNDARY = "-X-"
"""The word that conlleval takes for the end of a sentence."""
# The prefixes of IOB1, IOB2, IOE1 and IOE2, the only ones that conlleval knows. With B and E in one
# set of tags it would join an entity that ends with E and the next one that begins with B.
KNOWN = (re.compile(r"O|[BI]-.+"), re.compile(r"O|[IE]-.+"))


def scorer_lines(examples: Sequence[TaggedExample], predictions: Sequence[Tags]) -> Iterator[str]:
    """Yield WORD GOLD PREDICTED for each word, and an empty line after each sentence.

    The three are separated by spaces; white space in a word or a tag becomes `_`. Tags of entities
    in a form or a scheme that conlleval does not know, such as B_PER or IOBES, are written in IOB2
    with the same entities.
    """
    gold = [example.tags or () for example in examples]
    different = {tag for tags in (*gold, *predictions) for tag in tags}
    form = form_of(different)
    is_known = any(all(map(pattern.fullmatch, different)) for pattern in KNOWN)
    for example, true, guessed in zip(examples, gold, predictions, strict=True):
        if form and not is_known:
            true, guessed = _in_iob2(true, form), _in_iob2(guessed, form)
        for word, tag, guess in zip(example.words, true, guessed, strict=True):
            shown = word.lower() if word == BOUNDARY else word
            yield " ".join(_without_blanks((shown, tag, guess)))
        yield ""


def _in_iob2(tags: Tags, form: TagForm) -> Tags:
    """Return tags of IOB2 with the same entities."""
    written = [OUTSIDE] * len(tags)
    for entity in entities(tags, form):
        written[entity.first] = f"B-{entity.type}"
        for word in range(entity.first + 1, entity.last + 1):
            written[word] = f"I-{entity.type}"
    return tuple(written)


def _without_blanks(texts: Iterable[str]) -> list[str]:
    return [re.sub(r"\s", "_", text) for text in texts]
