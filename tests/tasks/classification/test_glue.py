import pytest

from bertjax.errors import UserError
from bertjax.tasks.classification.glue import TASKS, glue_label, glue_task, write_submission
from bertjax.tasks.classification.kind import TASK_CLASSES
from bertjax.tasks.classification.predictions import ClassPrediction, NumberPrediction
from bertjax.tasks.examples import TextExample

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("spelling,name", [
    ("cola", "cola"), ("CoLA", "cola"), ("SST-2", "sst2"), ("sst_2", "sst2"), ("STS-B", "stsb"), ("sts-b", "stsb"),
    ("MNLI", "mnli"), ("QNLI", "qnli"), ("Rte", "rte"), ("WNLI", "wnli"), ("qqp", "qqp"), ("MRPC", "mrpc"),
])  # fmt: skip
def test_names_are_known_however_they_are_spelled(spelling, name):
    assert glue_task(spelling).name == name


def test_other_names_are_no_tasks():
    assert [glue_task(name) for name in ("", "sst", "squad")] == [None] * 3


def test_the_nine_tasks_make_classifications_with_their_metrics():
    assert [task.name for task in TASKS] == [
        "cola",
        "sst2",
        "mrpc",
        "stsb",
        "qqp",
        "mnli",
        "qnli",
        "rte",
        "wnli",
    ]
    for task in TASKS:
        made = TASK_CLASSES[task.label_type](task.name, task.labels, task.metrics)
        assert made.metric == task.metrics[0]
        assert len(task.submission) == len(task.test_splits) == len(task.validation_splits)


def test_labels_have_the_numbers_that_tfds_gives_them():
    builders = pytest.importorskip("tensorflow_datasets.text.glue").Glue.BUILDER_CONFIGS
    known = {config.name: config for config in builders}
    for task in TASKS:
        config = known[task.name]
        assert tuple(config.label_classes or ()) == task.labels
        assert tuple(config.text_features) == (task.tfds_texts or task.texts)
        # MRPC's columns TFDS makes up itself; CoLA's have no names.
        if task.name not in ("mrpc", "cola"):
            assert tuple(config.text_features.values()) == task.texts
            assert config.label_column == task.label_column


@pytest.mark.parametrize("name,value,label", [
    ("cola", "1", "acceptable"), ("cola", 0, "unacceptable"), ("cola", "acceptable", "acceptable"),
    ("rte", "not_entailment", "not_entailment"), ("rte", 0, "entailment"), ("wnli", "0", "not_entailment"),
    ("mnli", "-", None), ("mnli", "neutral", "neutral"), ("mrpc", -1, None), ("qqp", None, None),
    ("stsb", "3.80", 3.8), ("stsb", 0.0, 0.0), ("stsb", "", None), ("stsb", -1.0, None),
])  # fmt: skip
def test_labels_are_known_by_name_or_number(name, value, label):
    assert glue_label(glue_task(name), value, "here") == label


@pytest.mark.parametrize("name,value,message", [
    ("cola", "2", "f, line 7: found the label '2', expected one of unacceptable, acceptable, or 0 to 1"),
    ("mnli", "contradicts", "f, line 7: found the label 'contradicts', expected one of entailment, neutral, contrad"),
    ("stsb", "5.1", "f, line 7: found the score '5.1', expected a number from 0 to 5"),
    ("stsb", "good", "f, line 7: found the score 'good', expected a number from 0 to 5"),
    ("stsb", "inf", "f, line 7: found the score 'inf', expected a number from 0 to 5"),
])  # fmt: skip
def test_other_labels_are_errors(name, value, message):
    with pytest.raises(UserError) as caught:
        glue_label(glue_task(name), value, "f, line 7")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name,split,predictions,file,lines", [
    ("CoLA", "test", ["acceptable", "unacceptable"], "CoLA.tsv", ["0\t1", "1\t0"]),
    ("wnli", "test", ["entailment"], "WNLI.tsv", ["0\t1"]),
    ("rte", "test", ["entailment", "not_entailment"], "RTE.tsv", ["0\tentailment", "1\tnot_entailment"]),
    ("mnli", "test_matched", ["neutral"], "MNLI-m.tsv", ["0\tneutral"]),
    ("mnli", "test_mismatched", ["contradiction"], "MNLI-mm.tsv", ["0\tcontradiction"]),
    ("stsb", "test", [3.14159, -0.2, 5.7], "STS-B.tsv", ["0\t3.142", "1\t0.000", "2\t5.000"]),
])  # fmt: skip
def test_submissions_are_as_the_benchmark_takes_them(
    tmp_path, name, split, predictions, file, lines
):
    made = [
        NumberPrediction(p) if isinstance(p, float) else ClassPrediction(p, (1.0,))
        for p in predictions
    ]
    examples = [TextExample(str(i), "text") for i in range(len(made))]
    path = write_submission(tmp_path, glue_task(name), split, made, examples)
    assert path.name == file
    assert (tmp_path / file).read_text() == "".join(
        f"{line}\n" for line in ["index\tprediction", *lines]
    )


def test_a_submission_of_another_split_is_an_error(tmp_path):
    with pytest.raises(
        UserError,
        match="submission of mnli: found the split test, expected one of test_matched, test",
    ):
        write_submission(tmp_path, glue_task("mnli"), "test", [], [])
