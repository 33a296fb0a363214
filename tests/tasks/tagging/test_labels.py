import pytest

from bertjax.errors import UserError
from bertjax.tasks.class_weights import balanced_weights
from bertjax.tasks.tagging.conll import read_conll
from bertjax.tasks.tagging.labels import (
    all_tags,
    check_all_entities,
    check_rules,
    describe,
    labels_of,
    types_of,
)
from bertjax.tasks.tagging.schemes import scheme_of
from tests.tasks.tagging.test_conll import error_of
from tests.tasks.tagging.test_task import sentence


def test_labels_begin_with_o_and_balanced_weights_make_tags_count_alike():
    examples = [sentence("a b c", "NOUN DET O"), sentence("a", "DET")]
    assert labels_of(examples) == ("O", "DET", "NOUN")
    weights = balanced_weights(labels_of(examples), all_tags(examples))
    assert weights == pytest.approx((4 / 3, 2 / 3, 4 / 3))
    assert labels_of([sentence("a b", "VERB ADV")]) == ("ADV", "VERB")


def test_training_data_that_breaks_the_rules_is_refused(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("x B-A\ny I-A\n\nx B-A\ny O\nz I-A\n")
    message = error_of(lambda: check_rules(read_conll(path)))
    assert (
        message
        == "sentence a.conll:4, word 3 'z': found I-A after O, expected a sequence by the rules of IOB2"
        " (or --finetune.metric accuracy, over words)"
    )
    check_rules([sentence("a b c", "I-A I-B B-B"), sentence("a b", "O I-A")])  # IOB1
    check_rules([sentence("a b c", "NOUN X I-A")])
    with pytest.raises(UserError, match=r"word 2 'b': found the end after B-A, expected .* IOBES"):
        check_rules([sentence("a b", "S-A B-A")])
    check_rules([sentence("a b", "I-A E-A"), sentence("a", "E-A")])
    with pytest.raises(UserError, match=r"word 2 'b': found the end after I-A, expected .* IOE2"):
        check_rules([sentence("a b", "E-A I-A"), sentence("a", "E-A")])


def test_tags_of_which_only_some_are_of_entities_are_refused():
    examples = [sentence("a b", "B-A I-A", "f:1"), sentence("a b", "B-A _", "f:4")]
    assert error_of(lambda: check_all_entities(examples)) == (
        "sentence f:4, word 2 'b': found the tag '_', expected O or a tag with B, I and so on, as"
        " others have (or --finetune.metric accuracy, over words)"
    )
    check_all_entities([sentence("a b", "B_A I_A"), sentence("a", "O")])
    check_all_entities([sentence("a b", "NOUN DET"), sentence("a", "X")])


def test_a_line_says_what_the_tags_are():
    def line_of(name, examples):
        return describe(name, labels_of(examples), scheme_of(each.tags for each in examples))

    assert line_of("ner", [sentence("a b c", "PER-B PER-I O"), sentence("a", "LOC-B")]) == (
        "ner: tags of entities in the scheme IOB2, with the types LOC, PER"
    )
    assert line_of("x", [sentence("a b", "PER O")]) == (
        "x: the tags O, PER are no tags of entities (B-PER, B_PER, PER-B), so the figure is"
        " accuracy over words"
    )
    many = [sentence("a", f"B-{letter}") for letter in "abcdefghij"]
    assert line_of("x", many).endswith("the types a, b, c, d, e, f, g, h and 2 more")
    assert types_of(("O", "b-per", "i-per")) == ("PER",)
