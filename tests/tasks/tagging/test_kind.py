from bertjax.tasks.error_tables import Mistake
from bertjax.tasks.tagging.kind import TaggingKind
from tests.tasks.tagging.test_task import NER, sentence


def test_mistakes_count_wrong_words_and_show_what_is_no_o():
    examples = [
        sentence("a b c", "B-A I-A O", "1"),
        sentence("a b", "B-A B-A", "2"),
        sentence("a", "O", "3"),
    ]
    predictions = [("B-A", "O", "O"), ("O", "I-A"), ("O",)]
    assert list(TaggingKind().mistakes(NER, predictions, examples)) == [
        Mistake(1, "a b c", "a/B-A b/I-A", "a/B-A b/O"),
        Mistake(2, "a b", "a/B-A b/B-A", "a/O b/I-A"),
    ]
