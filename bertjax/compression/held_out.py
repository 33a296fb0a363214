"""What a model is measured on: the held-out data of its run, or a file of rated pairs."""

import dataclasses
from collections.abc import Iterator
from itertools import chain

import numpy as np
from etils import epath

from bertjax.compression.figures import (
    MaskedWordMeasure,
    Measure,
    PairMeasure,
    Pooling,
    TaskMeasure,
    pair_measure,
)
from bertjax.compression.rated_pairs import read_pairs
from bertjax.config import Config
from bertjax.errors import check, mismatch
from bertjax.finetuning.batches import BatchShape
from bertjax.finetuning.data_digests import validation_digests
from bertjax.finetuning.evaluate_checkpoint import validation_sets
from bertjax.finetuning.load import load_finetuned
from bertjax.given_files import place_of
from bertjax.inference.lengths import longest_row
from bertjax.tasks import registry
from bertjax.training import checkpoint
from bertjax.training.batch_source import corpora, prepared_source
from bertjax.training.provenance import data_record
from bertjax.training.saved_model import saved_tokenizer
from bertjax.types import Batch

BATCH_ROWS = 32
"""Rows computed together; a training's batch may be larger than a machine that serves has room."""


def measure_of(
    run: epath.PathLike, *, task: str = "", sts: str = "", pooling: Pooling = "mean"
) -> Measure:
    """Return what the model of a run, or of one checkpoint, is measured on.

    A fine-tuned model: the main validation split of `task`, by default of its only one. Another
    model: the rated pairs of the file `sts`, or else the held-out records of its prepared data.
    Raises `UserError` if there is no such task, if the task has no linear head, if nothing is held
    out, and if the data are not those of the run.
    """
    _, folder = checkpoint.find_checkpoint(run)
    config = checkpoint.read_checkpoint_config(folder)
    if config.finetune.tasks:
        check(
            not sts,
            where="sts",
            found="a fine-tuned model",
            expected="one without a task: this one is measured on its task",
        )
        return _task_measure(folder, task)
    check(not task, where="task", found=task, expected="none: the model was not fine-tuned")
    if sts:
        return sts_measure(folder, sts, pooling)
    return _masked_word_measure(folder, config)


def sts_measure(run: epath.PathLike, sts: str, pooling: Pooling = "mean") -> PairMeasure:
    """Return the measure on the rated pairs of a file, with the tokenizer of a run."""
    path = place_of(sts)
    pairs = read_pairs(path)
    run_dir, folder = checkpoint.find_checkpoint(run)
    config = checkpoint.read_checkpoint_config(folder)
    tokenizer = saved_tokenizer(run_dir, folder)
    return pair_measure(path, pairs, tokenizer, longest_row(config.model, None), pooling)


def _task_measure(folder: epath.Path, name: str) -> TaskMeasure:
    model = load_finetuned(folder)
    names = list(model.objective.by_name)
    if not name and len(names) == 1:
        (name,) = names
    check(name in names, where="task", found=name or "none", expected=f"one of {', '.join(names)}")
    task = model.objective.by_name[name]
    check(
        registry.kind_of(task).task_head(task) is not None,
        where=f"task {name}",
        found="a decoder",
        expected="a linear head: other programs have no decoder of ours",
    )
    splits = validation_sets(model, model.tokenizer)
    facts = {data_record.DATA: validation_digests(splits)}
    data_record.check_evaluated_data(model.checkpoint, model.config, facts, asked=False)
    main = next(split for split in splits if split.task == name and not split.name)
    config = model.config
    shape = BatchShape(
        min(config.train.batch_size, BATCH_ROWS),
        config.row_lengths,
        config.finetune.max_seq_length,
        model.tokenizer.pad_id,
    )
    return TaskMeasure(task, main, "validation", shape)


def _masked_word_measure(folder: epath.Path, config: Config) -> MaskedWordMeasure:
    where = str(folder)
    check(
        "mlm" in config.model.heads,
        where=where,
        found="a model without a head for masked words",
        expected="--sts with a file of rated pairs",
    )
    places = corpora(config)
    absent = [str(place) for place in places.values() if not place.is_dir()]
    check(
        not absent,
        where=where,
        found=f"no prepared data at {', '.join(absent)}",
        expected="its held-out records, or --sts with a file of rated pairs",
    )
    run_dir, _ = checkpoint.find_checkpoint(folder)
    tokenizer = saved_tokenizer(run_dir, folder)
    small = with_small_batch(config)
    source = prepared_source(small, tokenizer, trains=False)
    data_record.check_evaluated_data(folder, config, source.facts, asked=False)
    names = ", ".join(map(str, places.values()))
    if not source.heldout:
        raise mismatch(
            where=names, found="no held-out records", expected="some, or --sts with rated pairs"
        )
    rows = np.arange(small.train.batch_size)

    def batches() -> Iterator[Batch]:
        return chain.from_iterable(each(rows, 0) for each in source.heldout.values())

    return MaskedWordMeasure(batches, config.model.vocab_size, f"{names}: held-out records")


def with_small_batch(config: Config) -> Config:
    """Return the configuration with batches of at most `BATCH_ROWS` rows, each for itself."""
    train = dataclasses.replace(
        config.train,
        batch_size=min(BATCH_ROWS, config.train.batch_size),
        gradient_accumulation_steps=1,
        batch_size_schedule="constant",
        max_batch_size=0,
    )
    return dataclasses.replace(config, train=train)
