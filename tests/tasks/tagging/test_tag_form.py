"""Forms of tags: B-PER, B_PER, PER-B and b-per are all the first word of a PER."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.tagging.entity_metrics import entities
from bertjax.tasks.tagging.tag_form import TagForm, form_of, misfits

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "tags",
    [
        "B-PER I-PER O B-LOC",
        "B_PER I_PER O B_LOC",
        "PER-B PER-I O LOC-B",
        "PER_B PER_I O LOC_B",
        "b-per i-per o b-loc",
        "b_per i_per O b_loc",
        "per-b per-i o loc-b",
        "b-PER i-PER o b-LOC",
        "B:PER I:PER O B:LOC",
        "PER/B PER/I O LOC/B",
        "I-PER E-PER O E-LOC",
        "I-PER I-PER O I-LOC",
        "B-PER E-PER O S-LOC",
        "B-PER L-PER O U-LOC",
    ],
)
def test_each_form_and_scheme_has_the_same_entities(tags):
    assert entities(tags.split()) == [("PER", 0, 1), ("LOC", 3, 3)]


@pytest.mark.parametrize(
    "tags, expected",
    [
        ("B-creative_work O", "creative_work"),
        ("B_creative_work O", "creative_work"),
        ("creative_work_B O", "creative_work"),
        ("B-PER-SUB I-PER-SUB", "PER-SUB"),
        ("PER-SUB-B PER-SUB-I", "PER-SUB"),
        ("B-PER-I O", "PER-I"),
        ("B-per O", "per"),
        ("b-Per o", "Per"),
        ("b-per B-PER", "per"),
        ("B-人名 I-人名", "人名"),
        ("S-B S-I O", "S"),
        ("E-B S-B", "B"),
        ("U-B", "B"),
        ("B I O", "_"),
        ("b m e s", "_"),
    ],
)
def test_a_type_is_what_stands_after_or_before_the_prefix(tags, expected):
    assert entities(tags.split())[0].type == expected


def test_types_that_differ_in_case_alone_are_not_joined():
    assert [entity.type for entity in entities(("b-per", "B-PER", "O"))] == ["per", "PER"]


def test_letters_alone_are_tags_of_entities_if_a_word_can_begin_one():
    for tags in (["B", "I", "O"], ["B", "M", "E", "S"], ["I", "O"], ["I", "E", "O"], ["b", "i"]):
        assert form_of(tags) == TagForm(capitals=tags == ["b", "i"]), tags


def test_parts_of_speech_are_no_tags_of_entities():
    assert form_of(["O", "B-PER", "I", "S-creative-work"]) is not None
    for tags in (
        ["NOUN", "X", "O"],
        ["IN", "BES"],
        ["O-PER"],
        ["B-PER", "X-PER"],
        [""],
        ["n", "v", "w"],
        ["e", "s", "o"],
        ["E", "M", "O"],
        ["E", "S"],
        ["S", "M", "L"],
        ["I", "M", "E"],
        ["NN", "NNS", "PRP$", "-LRB-", "."],
        ["0", "1"],
        ["PER", "O"],
        ["B-PER", "PER-I"],
    ):
        assert form_of(tags) is None, tags


def test_tags_among_which_some_are_of_entities_are_found():
    assert misfits(["B-PER", "I-PER", "_", "X"]) == ["X", "_"]
    assert misfits(["PER-B", "PER-I", "NONE"]) == ["NONE"]
    for tags in (["B-PER", "I-PER", "O"], ["NN", "B", "I"], ["B-PER", "NN"], []):
        assert misfits(tags) == []


types = st.text(st.characters(categories=("Lu", "Ll", "Nd", "Lo")), min_size=1, max_size=6)


@given(st.sets(types, min_size=1, max_size=4), st.sampled_from("-_:/|."), st.booleans())
def test_the_form_is_found_whatever_the_types_are_called(names, separator, type_first):
    # Of single letters either side may be the prefix; this is tested by hand above.
    names = {name * 2 for name in names}
    tags = {"O"}
    for name in names:
        for letter in "BI":
            sides = (name, letter) if type_first else (letter, name)
            tags.add(separator.join(sides))
    form = form_of(tags)
    assert form == TagForm(type_first)
    assert {form.parts(tag).type for tag in tags} == {"", *names}
    assert form.parts("X-") is None
