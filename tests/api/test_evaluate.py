"""`evaluate` and `predict` as a program calls them."""

import contextlib
import re

import numpy as np
import pytest

import bertjax
from bertjax.errors import UserError
from tests.tiny_library import write_library


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with a fine-tuned run in it, as current folder."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    with contextlib.chdir(folder):
        bertjax.prepare(bertjax.load_config("tiny.py"))
        bertjax.train(bertjax.load_config("tiny.py"), "runs/tiny")
        bertjax.finetune(bertjax.load_config("finetune.py"), "runs/finetuned")
        yield folder


def test_the_evaluation_of_a_run_is_written_but_not_one_of_another_configuration(library):
    path = library / "runs" / "finetuned" / "evaluation.json"
    path.unlink()
    config = bertjax.saved_config("runs/finetuned")
    other = bertjax.evaluate("runs/finetuned", config)
    assert not path.exists()
    own = bertjax.evaluate("runs/finetuned")
    assert path.exists()
    assert own == other
    assert set(own.metrics) == {"accuracy", "loss", "score"}


@pytest.mark.parametrize("metric", ["f1:yes", "recall"])
def test_the_metric_of_a_class_that_the_files_lack_is_refused(library, tmp_path, metric):
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nno cat\tno\na dog\tno\n")
    files = (str(tmp_path / "dev.tsv"),)
    config = bertjax.saved_config("runs/finetuned").replace(finetune={"validation_files": files})
    assert bertjax.evaluate("runs/finetuned", config).metrics.keys() == {
        "accuracy",
        "loss",
        "score",
    }
    message = f"found {metric}, for good, and no validation example of yes, expected one or more"
    with pytest.raises(UserError, match=message):
        bertjax.evaluate("runs/finetuned", config.replace(finetune={"metric": (metric,)}))


def test_predictions_are_returned_and_written_only_where_a_folder_is_given(library, tmp_path):
    before = {path.name for path in (library / "runs" / "finetuned").iterdir()}
    (predicted,) = bertjax.predict("runs/finetuned", "validation")
    assert (predicted.task, predicted.split, predicted.files) == ("good", "validation", [])
    assert len(predicted.examples) == len(predicted.predictions) == 8
    assert {path.name for path in (library / "runs" / "finetuned").iterdir()} == before
    (written,) = bertjax.predict("runs/finetuned", "validation", output_dir=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good-validation.tsv"]
    assert written.predictions == predicted.predictions


def test_other_files_are_predicted_by_another_configuration(library, tmp_path):
    (tmp_path / "more.tsv").write_text("sentence\nthe good cat\nno dog\n")
    config = bertjax.saved_config("runs/finetuned").replace(
        finetune={"test_files": (str(tmp_path / "more.tsv"),)}
    )
    (predicted,) = bertjax.predict("runs/finetuned", config=config)
    assert [example.text for example in predicted.examples] == ["the good cat", "no dog"]


def test_mistakes_are_named(library):
    with pytest.raises(UserError, match="split: found nothing, expected one of test, train, val"):
        bertjax.predict("runs/finetuned", "nothing")
    with pytest.raises(UserError, match="found a model without a task"):
        bertjax.predict("runs/tiny")
    with pytest.raises(UserError, match="found no checkpoint"):
        bertjax.evaluate(library)


def test_lines_of_text_are_predicted_as_in_a_file(library, tmp_path):
    (predicted,) = bertjax.predict("runs/finetuned")
    texts = [example.text for example in predicted.examples]
    by_line = bertjax.predict_texts("runs/finetuned", iter(texts))
    assert [one.label for one in by_line] == [one.label for one in predicted.predictions]
    np.testing.assert_allclose(
        [one.probabilities for one in by_line],
        [one.probabilities for one in predicted.predictions],
        rtol=1e-6,  # float32
    )
    assert bertjax.predict_texts("runs/finetuned", []) == []
    with pytest.raises(UserError, match="texts: found one text, 'the cat', expected a list"):
        bertjax.predict_texts("runs/finetuned", "the cat")
    with pytest.raises(UserError, match="found 2 columns, expected 1 column"):
        bertjax.predict_texts("runs/finetuned", ["the cat\tthe dog"])
    with pytest.raises(UserError, match="task: found bad, expected one of good"):
        bertjax.predict_texts("runs/finetuned", ["the cat"], task="bad")


@pytest.mark.parametrize("run,evaluated", [
    ("tiny", "the held-out evaluation"),
    ("finetuned", "the predictions of good"),
])  # fmt: skip
def test_the_log_of_a_run_says_what_is_compiled_before_it_is(library, run, evaluated):
    text = (library / "runs" / run / "log.txt").read_text()
    assert text.index("compiling the train step") < text.index("INFO step ")
    assert re.findall(r"compiling ([^:]+)", text) == ["the train step", evaluated]
