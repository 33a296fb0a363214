import dataclasses

import pytest

from bertjax.config import FinetuneConfig
from bertjax.errors import UserError
from bertjax.tasks.error_tables import Mistake
from bertjax.tasks.registry import with_chosen_metrics
from bertjax.tasks.tagging.kind import TaggingKind
from bertjax.tasks.tagging.task import Tagging
from tests.tasks.tagging.test_task import NER, TOKENIZER, sentence


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


def make(examples, **options):
    return TaggingKind().make_task("ner", examples, FinetuneConfig(**options), TOKENIZER)


def test_strict_counting_is_by_the_scheme_of_the_training_tags():
    for tags, scheme in (("B-A I-A", "IOB2"), ("I-A E-A", "IOE2"), ("B-A E-A", "IOBES")):
        task = make([sentence("a b", tags)], strict_entities=True)
        assert (task.scheme, task.strict) == (scheme, True)
    assert not make([sentence("a b", "B-A I-A")]).strict
    with pytest.raises(UserError, match=r"finetune.strict_entities: found True, expected False"):
        make([sentence("a b", "NN VB")], strict_entities=True)


def test_an_evaluation_may_count_otherwise_than_the_run_did():
    task = make([sentence("a b", "B-A I-A")])
    strict = with_chosen_metrics(task, FinetuneConfig(strict_entities=True))
    assert strict == dataclasses.replace(task, strict=True)
    assert with_chosen_metrics(strict, FinetuneConfig()) == task
    # A checkpoint of before has no scheme.
    with pytest.raises(UserError, match="its tags are in no known scheme"):
        with_chosen_metrics(NER, FinetuneConfig(strict_entities=True))


def test_a_task_is_written_as_before_unless_an_option_is_set():
    kind = TaggingKind()
    assert kind.to_dict(NER) == {
        "name": "ner",
        "labels": ("O", "B-A", "I-A"),
        "label_smoothing": 0.0,
        "class_weights": (),
    }
    strict = Tagging("ner", ("O", "B-A"), metrics=("f1_macro",), scheme="IOB2", strict=True)
    assert kind.from_dict(kind.to_dict(strict), "meta") == strict


@pytest.mark.parametrize("tags, level", [("B-A I-A", "INFO"), ("A O", "WARNING")])
def test_the_scheme_is_said_and_a_warning_if_there_is_none(caplog, tags, level):
    caplog.set_level("INFO")
    make([sentence("a b", tags)])
    assert [record.levelname for record in caplog.records] == [level]
    caplog.clear()
    make([sentence("a b", tags)], metric=("accuracy",))
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_tables_have_tags_that_training_has_not():
    examples = [sentence("a b", "B-A B-X"), sentence("a", "O")]
    tables = TaggingKind().error_tables(NER, [("B-A", "O"), ("O",)], examples)
    assert tables["confusion"] == {
        "labels": ["O", "B-A", "I-A", "B-X"],
        "counts": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]],
    }
    scores = tables["class_scores"]
    assert [(line["label"], line["f1"], line["examples"]) for line in scores["classes"]] == [
        ("A", 1.0, 1),
        ("X", 0.0, 1),
    ]
    assert {line["label"]: line["f1"] for line in scores["averages"]} == pytest.approx(
        {"micro": 2 / 3, "macro": 1 / 2, "weighted": 1 / 2}
    )
    assert TaggingKind().majority_baseline(NER, examples) == 0.4  # all B-A, not B-X
    assert TaggingKind().majority_baseline(NER, [sentence("a", "B-X")]) == 0


def test_metrics_that_may_be_chosen_are_those_of_the_tags():
    kind, pos = TaggingKind(), Tagging("pos", ("DET", "NOUN"))
    of_entities = {metric.shown for metric in kind.task_metrics(NER)}
    of_words = {metric.shown for metric in kind.task_metrics(pos)}
    assert of_entities - of_words == {"f1", "precision", "recall"}
    assert of_words == {
        "accuracy",
        *(
            f"{name}_{kind}"
            for name in ("f1", "precision", "recall")
            for kind in ("macro", "weighted")
        ),
        *(f"{name}:CLASS" for name in ("f1", "precision", "recall")),
    }
    assert kind.classes_in(NER, [sentence("a b", "B-X NN")]) == {"X"}
    assert kind.classes_in(pos, [sentence("a", "DET")]) == {"DET"}
    assert kind.metric_classes(NER) == ("A",)
    assert kind.metric_classes(pos) == ("DET", "NOUN")
