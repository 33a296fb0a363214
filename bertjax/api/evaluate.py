"""Evaluate a pretrained or fine-tuned checkpoint, and predict with a fine-tuned one."""

import dataclasses
import logging
import os
from collections.abc import Iterable
from typing import Any

from etils import epath

from bertjax.api.results import EvaluationResult, SplitPredictions
from bertjax.config import Config
from bertjax.errors import check, mismatch
from bertjax.finetuning.data_digests import validation_digests
from bertjax.finetuning.error_analysis import FILE as EVALUATION
from bertjax.finetuning.error_analysis import write_evaluation
from bertjax.finetuning.evaluate_checkpoint import (
    assess,
    entries_of,
    predict_split,
    validation_sets,
)
from bertjax.finetuning.load import Finetuned, load_finetuned
from bertjax.finetuning.predict_texts import entry_for_texts, predict_lines
from bertjax.finetuning.predictions import predictions_held, write_predictions
from bertjax.given_files import place_of
from bertjax.inference.given_texts import each_text
from bertjax.parallel import hosts
from bertjax.parallel.memory import batch_memory_errors, check_batch_memory
from bertjax.parallel.mesh import make_mesh
from bertjax.report.html import REPORT, write_report
from bertjax.storage import is_local, is_plain_name
from bertjax.storage.outputs import files_held
from bertjax.tasks import registry
from bertjax.tasks.kind import Entry, PredictedSplit
from bertjax.training import checkpoint
from bertjax.training.batch_source import corpora, prepared_source
from bertjax.training.provenance import data_record
from bertjax.training.saved_model import load_model, load_networks
from bertjax.training.step import check_batch

log = logging.getLogger("bertjax")

OLD_SECONDS = 60.0
"""An unfinished file in a run's folder may belong to a training that is still running, unless it is
older than this, in seconds.
"""


def saved_config(path: epath.PathLike) -> Config:
    """Return the configuration of a run's newest or selected checkpoint, or of one checkpoint.

    Raises `UserError` if `path` is neither a run folder nor a checkpoint folder.

    >>> import bertjax
    >>> bertjax.saved_config("runs/tiny").train.batch_size
    8
    """
    return checkpoint.read_checkpoint_config(checkpoint.find_checkpoint(path)[1])


def evaluate(path: epath.PathLike, config: Config | None = None) -> EvaluationResult:
    """Compute the held-out metrics of a run's newest or selected checkpoint, or of one checkpoint.

    A pretrained model is evaluated on all held-out records of its prepared data; a fine-tuned model
    on the validation sets of its tasks. `config` replaces the checkpoint's own configuration
    (`saved_config`), so that the model can be evaluated on other data or other devices.

    Without a `config`, the result for a fine-tuned run's selected checkpoint is also written to
    `evaluation.json` and `report.html` in the run folder. If there are several processes, all must
    call this with the same arguments.

    Raises `UserError` if there is no checkpoint, if the data do not fit the model, or if they are
    not those of the run although `config` names no other ones.

    >>> import bertjax
    >>> result = bertjax.evaluate("runs/tiny")
    >>> result.checkpoint.name
    '2'
    >>> result.metrics["mlm_perplexity"] > 1
    True
    """
    used = saved_config(path) if config is None else config
    if not saved_config(path).finetune.tasks:
        return _evaluate_on_heldout(path, used)
    run_dir, found = checkpoint.find_checkpoint(path)
    # The files in the run folder are only about the selected checkpoint and the run's own data.
    records = config is None and checkpoint.find_checkpoint(run_dir)[1] == found
    if records and not _is_writable(run_dir):
        log.warning("%s: cannot be written, so no file of the result is made", run_dir)
        records = False
    if not records or not hosts.is_first():
        return _evaluate_on_tasks(path, used, records=records)
    # Before the model is loaded: a second command that writes the same is told at once.
    with files_held("evaluate", run_dir / EVALUATION, run_dir / REPORT, age=OLD_SECONDS):
        return _evaluate_on_tasks(path, used, records=records)


def _is_writable(folder: epath.Path) -> bool:
    return not is_local(folder) or os.access(folder, os.W_OK)


def _evaluate_on_heldout(path: epath.PathLike, config: Config) -> EvaluationResult:
    model = load_model(path, config)
    mesh = make_mesh(config.mesh)
    # All batches, even if the evaluations during training were limited to fewer.
    train = dataclasses.replace(config.train, eval_max_batches=0)
    config = dataclasses.replace(config, train=train)
    check_batch(config, mesh)
    check_batch_memory(config, mesh)
    source = prepared_source(config, model.tokenizer, trains=False)
    own = checkpoint.read_checkpoint_config(model.checkpoint)
    asked = corpora(config) != corpora(own)
    data_record.check_evaluated_data(model.checkpoint, config, source.facts, asked=asked)
    if source.make_evaluator is None:
        folders = ", ".join(map(str, corpora(config).values()))
        raise mismatch(
            where=folders,
            found="no held-out records, as prepared with data.validation_fraction 0",
            expected="a folder that has some (--data.prepared-dir)",
        )
    with batch_memory_errors(config):
        if config.replaced.is_used:
            params = load_networks(model.checkpoint, config)
        else:
            params = model.inference_params
        metrics = source.make_evaluator(config, mesh)(params)
    return EvaluationResult(model.checkpoint, metrics)


def _evaluate_on_tasks(path: epath.PathLike, config: Config, *, records: bool) -> EvaluationResult:
    model = load_finetuned(path, config)
    splits = validation_sets(model, model.tokenizer)
    own = checkpoint.read_checkpoint_config(model.checkpoint)
    facts = {data_record.DATA: validation_digests(splits)}
    asked = config.finetune != own.finetune
    data_record.check_evaluated_data(model.checkpoint, config, facts, asked=asked)
    assessed, metrics = assess(model, splits, model.tokenizer)
    if records and hosts.is_first():
        write_evaluation(model.run_dir, int(model.checkpoint.name), assessed, metrics)
        write_report(model.run_dir)
    return EvaluationResult(model.checkpoint, metrics)


def predict(
    path: epath.PathLike,
    split: str = "test",
    *,
    output_dir: epath.PathLike | None = None,
    config: Config | None = None,
) -> list[SplitPredictions]:
    """Predict a split of each task with a fine-tuned run's selected checkpoint, or one checkpoint.

    `split` is `test`, `validation` or `train`, or a part of one of them: MNLI's `test` stands for
    both `test_matched` and `test_mismatched`. The examples need no labels. `config` replaces the
    checkpoint's own configuration (`saved_config`), for example to predict other files
    (`finetune.test_files`).

    If an `output_dir` is given, the predictions are written there, in the usual format of the kind
    of task: the files to submit to GLUE, SQuAD's JSON, CoNLL's columns, or tables. Their names are
    `TASK-SPLIT.ENDING` for all kinds. All splits are predicted before the first file is written. If
    there are several processes, all must call this with the same arguments, and the first one
    writes.

    Raises `UserError` if the model was not fine-tuned, the split is not known, or a file is
    invalid.

    >>> import bertjax
    >>> (predicted,) = bertjax.predict("runs/finetuned", output_dir="predicted")
    >>> predicted.task, predicted.split, len(predicted.predictions)
    ('good', 'test', 4)
    >>> [path.name for path in predicted.files]
    ['good-test.tsv']
    """
    config = saved_config(path) if config is None else config
    check(is_plain_name(split), where="split", found=repr(split), expected="the name of a split")
    if output_dir is None or not hosts.is_first():
        model, results = _predicted(path, split, config)
        files: list[list[epath.Path]] = [[] for _ in results]
    else:
        folder = place_of(output_dir)
        # Before the model is loaded: a second command with this output is told at once.
        with predictions_held(folder, split):
            model, results = _predicted(path, split, config)
            files = write_predictions(folder, results, model.config.finetune, held=split)
    return [
        SplitPredictions(
            model.checkpoint,
            result.entry.name,
            result.split,
            list(result.examples),
            list(result.predictions),
            paths,
        )
        for result, paths in zip(results, files, strict=True)
    ]


def _predicted(
    path: epath.PathLike, split: str, config: Config
) -> tuple[Finetuned, list[PredictedSplit[Any, Any]]]:
    """Return the model, and what it predicts for `split` of each of its tasks."""
    model = load_finetuned(path, config)
    results = []
    for entry in entries_of(model):
        for part in _parts(entry, split):
            examples, predictions = predict_split(model, entry, part, model.tokenizer)
            results.append(PredictedSplit(entry, part, examples, predictions))
    return model, results


def predict_texts(
    path: epath.PathLike, texts: Iterable[str], *, task: str = "", config: Config | None = None
) -> list[Any]:
    """Predict lines of text with a fine-tuned run's selected checkpoint, or one checkpoint.

    The result has a prediction for each text, as `predict` returns them. Several columns of a text
    are separated by tabs: the two texts of a pair; question and paragraph; a context and its
    endings. For tagging, the words of a text are separated by spaces. `task` names the task if the
    model has several. `config` replaces the checkpoint's own configuration (`saved_config`), which
    is changed for the devices of this machine.

    Raises `UserError` if the model was not fine-tuned, for a task that it does not have, and for a
    text of other columns.

    >>> import bertjax
    >>> (prediction,) = bertjax.predict_texts("runs/finetuned", ["the good dog sees."])
    >>> prediction.label in ("no", "yes")
    True
    """
    given = list(each_text(texts, "texts"))
    model = load_finetuned(path, config)
    answers = predict_lines(model, entry_for_texts(model, task), given)
    return [answer.prediction for answer in answers]


def _parts(entry: Entry, split: str) -> tuple[str, ...]:
    """Return the splits of a task's data that `split` stands for; `UserError` if it is unknown."""
    parts = {
        "test": registry.test_splits(entry),
        "validation": registry.validation_splits(entry),
        "train": ("train",),
    }
    known = set(parts)
    for names in parts.values():
        known.update(names)
    check(
        split in known,
        where="split",
        found=split,
        expected=f"one of {', '.join(sorted(known))}",
    )
    return parts.get(split, (split,))
