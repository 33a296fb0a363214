"""Schemes of tags found in data, and the places where their rules are broken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.tagging.entity_metrics import entities
from bertjax.tasks.tagging.schemes import Break, Entity, broken, scheme_of
from tests.tasks.tagging.test_entity_metrics import sentences, tagged

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "sequences, expected",
    [
        (["B-PER I-PER O", "B-LOC O"], "IOB2"),
        (["I-PER I-PER O", "I-LOC B-LOC O"], "IOB1"),
        (["I-PER I-PER O I-LOC", "B-LOC O"], "IOB1"),
        (["B-PER I-PER O B-LOC", "I-LOC O"], "IOB2"),
        (["B-PER", "O I-PER I-LOC"], "IOB1"),
        (["B-PER O", "I-LOC O"], "IOB2"),
        (["B-PER E-PER O", "B-LOC O"], "IOBES"),
        (["B-PER M-PER E-PER O", "S-LOC O"], "IOBES"),
        (["U-PER O"], "IOBES"),
        (["O O"], "IOB2"),
        (["NOUN VERB", "O B-PER"], None),
        (["X O"], None),
        ([], "IOB2"),
    ],
)
def test_the_scheme_is_what_most_entities_are_in(sequences, expected):
    assert scheme_of(map(tagged, sequences)) == expected


@pytest.mark.parametrize(
    "scheme, tags, expected",
    [
        ("IOB2", "B-PER I-PER I-PER O B-LOC B-LOC I-LOC", None),
        ("IOB2", "I-PER O", (0, "the beginning", "I-PER")),
        ("IOB2", "B-PER O I-PER", (2, "O", "I-PER")),
        ("IOB2", "O B-PER I-LOC", (2, "B-PER", "I-LOC")),
        ("IOB1", "I-PER I-LOC B-LOC O B-PER", None),
        ("IOBES", "B-PER I-PER E-PER S-LOC O S-PER B-LOC E-LOC", None),
        ("IOBES", "B-PER O", (1, "B-PER", "O")),
        ("IOBES", "O B-PER", (1, "B-PER", "the end")),
        ("IOBES", "O E-PER", (1, "O", "E-PER")),
        ("IOBES", "S-PER I-PER", (1, "S-PER", "I-PER")),
        ("IOBES", "B-PER E-LOC", (1, "B-PER", "E-LOC")),
        ("IOBES", "B-PER B-PER", (1, "B-PER", "B-PER")),
        ("IOB2", "", None),
        ("IOBES", "", None),
    ],
)
def test_the_first_breach_of_a_schemes_rules_is_found(scheme, tags, expected):
    assert broken(tagged(tags), scheme) == (expected and Break(*expected))


@given(sentences.filter(lambda tags: not {tag[0] for tag in tags} & {"E", "S"}))
def test_a_sequence_keeps_the_rules_where_reading_it_strictly_gives_the_same_entities(tags):
    """Strictly: only B begins an entity, and an I that continues none is lost."""
    strict, first = [], None
    for word, tag in enumerate([*tags, "O"]):
        continues = (
            tag[0] == "I" and first is not None and tag[1:].strip("-") == tags[first][1:].strip("-")
        )
        if first is not None and not continues:
            strict.append((first, word - 1))
            first = None
        if tag[0] == "B":
            first = word
    assert (broken(tags) is None) == (
        strict == [(entity.first, entity.last) for entity in entities(tags)]
    )


@pytest.mark.parametrize(
    "sequences, expected",
    [
        (["I-PER E-PER O", "E-LOC"], "IOE2"),
        (["E-LOC O E-PER"], "IOE2"),
        (["I-PER L-PER O", "L-LOC"], "IOE2"),
        (["I-PER I-PER O", "I-LOC E-LOC I-LOC"], "IOE1"),
        (["I-PER I-LOC O E-PER I-PER"], "IOE1"),
        (["I-PER E-LOC"], "IOE2"),
        (["I-PER E-PER S-LOC"], "IOBES"),
        (["E-PER S-LOC"], "IOBES"),
    ],
)
def test_tags_with_ends_alone_are_in_ioe(sequences, expected):
    assert scheme_of(map(tagged, sequences)) == expected


encoded = st.lists(
    st.tuples(st.sampled_from(["PER", "LOC", "PER-SUB"]), st.integers(1, 3), st.integers(0, 2)),
    max_size=5,
)


def written(spans, scheme):
    """The entities of a sentence, and its tags in a scheme, by the definitions of cs/9907006."""
    types = []
    found = []
    for name, length, gap in spans:
        found.append(Entity(name, len(types), len(types) + length - 1))
        types += [(name, len(found))] * length + [("", 0)] * gap
    tags = []
    for word, (name, number) in enumerate(types):
        before = types[word - 1] if word else ("", 0)
        after = types[word + 1] if word + 1 < len(types) else ("", 0)
        first, last = before[1] != number, after[1] != number
        letter = {
            "IOB1": "B" if first and before[0] == name else "I",
            "IOB2": "B" if first else "I",
            "IOE1": "E" if last and after[0] == name else "I",
            "IOE2": "E" if last else "I",
            "IOBES": "S" if first and last else "B" if first else "E" if last else "I",
        }[scheme]
        tags.append(f"{letter}-{name}" if name else "O")
    return found, tags


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOE1", "IOE2", "IOBES"])
def test_entities_written_in_a_scheme_are_read_again_in_both_modes(scheme):
    @given(encoded)
    def read(spans):
        found, tags = written(spans, scheme)
        assert broken(tags, scheme) is None
        assert entities(tags) == entities(tags, strict=scheme) == found
        if scheme in ("IOB2", "IOE2", "IOBES") and any(length > 1 for _, length, _ in spans):
            assert scheme_of([tags]) == scheme

    read()


@pytest.mark.parametrize(
    "scheme, tags, expected",
    [
        ("IOE2", "I-PER I-PER E-PER O E-LOC E-LOC I-LOC E-LOC", None),
        ("IOE2", "I-PER O", (1, "I-PER", "O")),
        ("IOE2", "O I-PER", (1, "I-PER", "the end")),
        ("IOE2", "I-PER E-LOC", (1, "I-PER", "E-LOC")),
        ("IOE1", "I-PER E-LOC O E-PER", None),
    ],
)
def test_the_rules_of_ioe_look_at_the_end_of_an_entity(scheme, tags, expected):
    assert broken(tagged(tags), scheme) == (expected and Break(*expected))


def test_tags_of_other_forms_are_refused_by_name():
    with pytest.raises(ValueError, match="not all of B-PER, X are tags of entities"):
        broken(("B-PER", "X"))
