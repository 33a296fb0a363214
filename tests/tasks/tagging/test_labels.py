import pytest

from bertjax.errors import UserError
from bertjax.tasks.class_weights import balanced_weights
from bertjax.tasks.tagging.conll import read_conll
from bertjax.tasks.tagging.labels import all_tags, check_rules, labels_of
from tests.tasks.tagging.test_task import error_of, sentence


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
    )
    check_rules([sentence("a b c", "I-A I-B B-B"), sentence("a b", "O I-A")])  # IOB1
    check_rules([sentence("a b c", "NOUN X I-A")])
    with pytest.raises(UserError, match=r"word 2 'b': found the end after B-A, expected .* IOBES"):
        check_rules([sentence("a b", "S-A B-A")])
