"""Fine-tuning: tasks opened, steps counted, batches and figures given to the one training loop."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config, Head, OptimizerConfig, TrainConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.finetuning import batches
from bertjax.finetuning.evaluate import Assessed, Split, examiner
from bertjax.finetuning.load import THRESHOLDS
from bertjax.finetuning.objective import TaskObjective
from bertjax.progress import Progress, silent
from bertjax.storage import read_json, write_whole
from bertjax.tasks import registry as kinds
from bertjax.tasks.registry import OpenedTask, kind_of
from bertjax.tasks.task import EncodedExamples, Task
from bertjax.training import checkpoint
from bertjax.training.batch_source import BatchSource
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.loop import Outcome, train

ROWS = "training_rows_sha256"  # in `meta` and `result.json`: what a run was trained on


@dataclass(frozen=True)
class Prepared:
    """Tasks ready to be trained."""

    opened: tuple[OpenedTask, ...]
    train: Mapping[str, EncodedExamples]
    """Training rows by task."""
    validation: tuple[Split, ...]

    @cached_property
    def digest(self) -> str:
        """A hash of all training rows, with their targets."""
        digest = hashlib.sha256()
        for name, rows in sorted(self.train.items()):
            digest.update(name.encode())
            for values in (
                rows.ids,
                rows.offsets,
                *rows.targets.values(),
                *rows.token_targets.values(),
            ):
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    @cached_property
    def baseline(self) -> float:
        """The score of the majority-class baseline: the mean over tasks of their metric, in 0..1."""
        own = {split.task: split.examples for split in self.validation if not split.name}
        return fmean(
            kind_of(one.task).majority_baseline(one.task, own[one.task.name]) for one in self.opened
        )


def prepare(config: Config, tokenizer: Tokenizer) -> Prepared:
    """Read the training and validation sets of all tasks and make rows of them.

    Raises `UserError` where a file, a line or a label is not as it should be.
    """
    opened = kinds.open_tasks(config, tokenizer)
    length = config.finetune.max_seq_length
    train = {
        one.task.name: one.task.encode(one.splits["train"], tokenizer, length, targets=True)
        for one in opened
    }
    validation = [
        validation_split(config, one.task, name, one.splits[name], tokenizer)
        for one in opened
        for name in one.splits
        if name != "train"
    ]
    return Prepared(opened, train, tuple(validation))


def validation_split(
    config: Config, task: Task, name: str, examples: Sequence[Any], tokenizer: Tokenizer
) -> Split:
    """Labelled examples of the split `name`; `validation_matched` is the task's own as `validation`
    is.
    """
    part = name.partition("_")[2]
    rows = task.encode(examples, tokenizer, config.finetune.max_seq_length, targets=True)
    return Split(task.name, "" if part == "matched" else part, examples, rows)


def resolve(config: Config, prepared: Prepared, restored_heads: Sequence[Head]) -> Config:
    """`config` with what follows from the data: steps, warmup, evaluations; and the heads that the
    tasks need.

    `restored_heads` are those of the model that the run begins with.
    """
    told = config.finetune
    _check_unset(config)
    size = config.train.batch_size
    per_epoch = sum(batches.steps_per_epoch(rows, size) for rows in prepared.train.values())
    steps = max(1, math.ceil(told.epochs * per_epoch))
    every = min(steps, max(1, round(per_epoch / told.evaluations_per_epoch)))
    heads = kinds.heads_needed(prepared.opened, restored_heads)
    new = tuple(
        head
        for head in heads
        if head not in restored_heads or (head == "pooler" and told.reinit_pooler)
    )
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, heads=heads),
        new_heads=new if config.init_from else (),
        optimizer=dataclasses.replace(
            config.optimizer, warmup_steps=round(told.warmup_fraction * steps)
        ),
        train=dataclasses.replace(
            config.train,
            steps=steps,
            eval_every_steps=every,
            save_every_steps=every,
            log_every_steps=min(config.train.log_every_steps, every),
        ),
    )


def _check_unset(config: Config) -> None:
    """Raise `UserError` for a setting that would be replaced by what follows from the data."""
    for name in ("steps", "eval_every_steps", "save_every_steps"):
        found, default = getattr(config.train, name), getattr(TrainConfig, name)
        check(
            found == default,
            where=f"train.{name}",
            found=found,
            expected="finetune.epochs, which sets it",
        )
    found = config.optimizer.warmup_steps
    check(
        found in (0, OptimizerConfig.warmup_steps),
        where="optimizer.warmup_steps",
        found=found,
        expected="finetune.warmup_fraction",
    )


def objective_of(config: Config, prepared: Prepared) -> TaskObjective:
    """What a resolved configuration trains."""
    return TaskObjective(
        config.model, tuple(one.task for one in prepared.opened), config.finetune.reinit_layers
    )


def task_feed(
    config: Config, prepared: Prepared, objective: TaskObjective, tokenizer: Tokenizer
) -> BatchSource:
    """The batches and the held-out figures of a resolved configuration, for
    `bertjax.training.loop.train`.
    """
    return BatchSource(
        train=lambda start, rows: batches.train_batches(
            prepared.train,
            batch_size=config.train.batch_size,
            steps_total=config.train.steps,
            seed=config.seed,
            length_buckets=config.finetune.length_buckets,
            max_seq_length=config.finetune.max_seq_length,
            task_exponent=config.finetune.task_exponent,
            pad_id=tokenizer.pad_id,
            start=start,
            rows=rows,
        ),
        make_evaluator=partial(examiner, objective, prepared.validation, tokenizer.pad_id),
        facts={
            "tokenizer_fingerprint": tokenizer.fingerprint,
            ROWS: prepared.digest,
            "tasks": [kinds.to_plain(one.task) for one in prepared.opened],
        },
    )


def check_same_rows(run_dir: epath.Path, prepared: Prepared) -> None:
    """Raise `UserError` where a run was begun on other training rows."""
    if (run_dir / checkpoint.RESULT).exists():
        before = read_json(run_dir / checkpoint.RESULT).get(ROWS)
    elif checkpoint.has_checkpoint(run_dir):
        before = checkpoint.read_meta(checkpoint.find_checkpoint(run_dir)[1]).get(ROWS)
    else:
        return
    check(
        before == prepared.digest,
        where=str(run_dir),
        found="other training examples",
        expected="those it began with, or another --run-dir",
    )


def finetune(
    config: Config,
    run_dir: epath.Path,
    prepared: Prepared,
    tokenizer: Tokenizer,
    *,
    progress: Progress = silent,
    on_evaluation: Callable[[], object] = lambda: None,
) -> Outcome:
    """Train a resolved configuration in `run_dir`, or go on, as `bertjax.training.loop.train` says."""
    check_same_rows(run_dir, prepared)
    objective = objective_of(config, prepared)
    source = task_feed(config, prepared, objective, tokenizer)
    return train(config, run_dir, source, objective, progress=progress, on_evaluation=on_evaluation)


def choose_thresholds(run_dir: epath.Path, evaluated: Assessed) -> bool:
    """Add to `result.json` the decision threshold of each task that has one.

    It is chosen on the task's own validation set. Returns whether there is any: the figures change
    with it.
    """
    chosen: dict[str, float] = {}
    for task, split, result in evaluated:
        if split.name:
            continue
        threshold = kind_of(task).choose_threshold(task, result.predictions, split.examples)
        if threshold is not None:
            chosen[task.name] = threshold
    if chosen:
        result_before = read_json(run_dir / checkpoint.RESULT)
        _write_result(run_dir, {**result_before, THRESHOLDS: chosen})
    return bool(chosen)


def write_result(
    config: Config, run_dir: epath.Path, step: int, prepared: Prepared
) -> dict[str, Any]:
    """Name the checkpoint that counts in `result.json`: the one with the best score, or that of the
    last `step`.

    Returns what was written: `step`, `figures` on the validation set at that step.
    """
    rows = [
        row for row in read_entries(run_dir) if row["split"] == "validation" and row["step"] <= step
    ]
    kept = [row for row in rows if (run_dir / checkpoint.FOLDER / str(row["step"])).exists()]
    worth = lambda row: -math.inf if row["score"] is None else row["score"]  # noqa: E731
    best = max(kept, key=worth) if config.finetune.restore_best else kept[-1]
    figures = {name: value for name, value in best.items() if name not in ("step", "split")}
    result = {
        "step": best["step"],
        "figures": figures,
        "evaluations": len(rows),
        ROWS: prepared.digest,
    }
    _write_result(run_dir, result)
    return result


def _write_result(run_dir: epath.Path, result: dict[str, Any]) -> None:
    write_whole(run_dir / checkpoint.RESULT, (json.dumps(result, indent=1) + "\n").encode())
