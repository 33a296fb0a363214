"""Figures are those of `evaluate`, whoever computes the outputs."""

import contextlib

import pytest
from etils import epath

import bertjax
from bertjax.compression.figures import model_predict
from bertjax.compression.held_out import measure_of
from bertjax.errors import UserError
from bertjax.interop.checkpoints.task_head import load_with_head
from bertjax.training.saved_model import load_model, save_model
from tests.compression.small_runs import encoder_run, pretrained_run, task_run, write_pairs
from tests.tiny_library import write_library


def own_figure(run, measure, task=""):
    model, head = load_with_head(run, task)
    return measure.figure(model_predict(model.config.model, model.params, measure.output, head))


@pytest.mark.slow
def test_each_task_has_the_figure_of_its_evaluation(tmp_path, largest):
    run = task_run(tmp_path, ("classification", "tagging", "choice"))
    metrics = bertjax.evaluate(run).metrics
    for task, count in (("good", 40), ("towns", 20), ("swag", 20)):
        measure = measure_of(run, task=task)
        figure = own_figure(run, measure, task)
        assert figure.count == count
        assert figure.higher_is_better
        assert figure.measured_on == f"{task}: validation"
        largest("figure of a task", abs(figure.value - metrics[f"{figure.name}/{task}"]), 1e-12)
    with pytest.raises(UserError, match="task: found none, expected one of good, towns, swag"):
        measure_of(run)
    with pytest.raises(UserError, match="task: found bad, expected one of good, towns, swag"):
        measure_of(run, task="bad")
    with pytest.raises(UserError, match="sts: found a fine-tuned model"):
        measure_of(run, task="good", sts="pairs.tsv")


@pytest.mark.slow
def test_a_pretrained_model_has_the_masked_word_loss_of_its_evaluation(tmp_path, largest):
    folder = write_library(tmp_path)
    with contextlib.chdir(folder):
        config = bertjax.load_config("tiny.py")
        bertjax.prepare(config)
        run = pretrained_run(folder, config)
        metrics = bertjax.evaluate(run).metrics
        measure = measure_of(run)
        figure = own_figure(run, measure)
        assert (figure.name, figure.higher_is_better) == ("mlm_loss", False)
        largest("masked-word loss", abs(figure.value - metrics["mlm_loss"]), 1e-5)
        assert sum(len(batch["input_ids"]) for batch in measure.batches()) == metrics["instances"]
        # Other data are not those of the run.
        elsewhere = config.replace(data={"prepared_dir": "nowhere"})
        run = pretrained_run_without_data(folder, config, elsewhere)
        with pytest.raises(UserError, match="no prepared data at nowhere, expected its held-out"):
            measure_of(run)


def pretrained_run_without_data(folder, config, elsewhere):
    model = load_model(folder / "run")
    save_model(folder / "other", elsewhere, model.params, model.tokenizer, {})
    return folder / "other"


def test_rated_pairs_measure_the_vectors_of_embed(tmp_path, largest):
    run, file = encoder_run(tmp_path), write_pairs(tmp_path / "pairs.tsv", 16)
    measure = measure_of(run, sts=str(file))
    vectors = bertjax.embed(run, list(measure.texts))
    figure = own_figure(run, measure)
    assert (figure.name, figure.count) == ("spearman", 16)
    expected = measure.figure_of_vectors(vectors).value
    largest("Spearman of rated pairs", abs(figure.value - expected), 1e-6)
    assert -1 < expected < 1
    assert measure_of(run, sts=str(file), pooling="cls").pooling == "cls"


def test_a_model_that_nothing_measures_is_refused(tmp_path):
    run = encoder_run(tmp_path)
    with pytest.raises(UserError, match="without a head for masked words, expected --sts"):
        measure_of(run)
    with pytest.raises(UserError, match="task: found sst2, expected none"):
        measure_of(run, task="sst2")
    with pytest.raises(UserError, match="cannot be read as a file of rated pairs"):
        measure_of(run, sts=str(epath.Path(tmp_path) / "absent.tsv"))
