from bertjax.tasks.question_answering.kind import SpansKind
from tests.tasks.question_answering.test_task import TASK, answered, asked


def test_mistakes_are_answers_without_a_right_word_the_worse_the_surer():
    examples = [asked(0, "dog"), asked(1, "cat ran"), asked(2), asked(3, "ran"), asked(4, "x")]
    predictions = [
        answered("cat", probability=0.3),
        answered("ran", probability=0.9),
        answered("z", probability=0.8),
        answered("", probability=0.7),
        answered("x", probability=1.0),
    ]
    mistakes = SpansKind().mistakes(TASK, predictions, examples)
    assert [(mistake.expected, mistake.predicted, mistake.severity) for mistake in mistakes] == [
        ("dog", "cat", 0.3),
        ("no answer", "z", 0.8),
        ("ran", "", 0.7),
    ]
