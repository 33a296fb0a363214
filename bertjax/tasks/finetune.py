"""Fine-tuning: tasks opened, steps counted, batches and figures given to the one training loop."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from bertjax.config import Config, Head
from bertjax.data.files import read_json, write_whole
from bertjax.data.tokenizer import Tokenizer
from bertjax.progress import Progress, silent
from bertjax.tasks import batches, kinds
from bertjax.tasks.evaluation import Evaluated, Split, examiner
from bertjax.tasks.kinds import Opened
from bertjax.tasks.objective import TaskObjective
from bertjax.tasks.spans import Spans, choose_threshold
from bertjax.tasks.task import Rows, Task
from bertjax.train import checkpoint
from bertjax.train.feed import Feed
from bertjax.train.loop import Outcome, train
from bertjax.train.metrics import read_rows


class Prepared(NamedTuple):
    """Tasks ready to be trained."""

    opened: tuple[Opened, ...]
    train: Mapping[str, Rows]
    """Training rows by task."""
    validation: tuple[Split, ...]


def prepare(config: Config, tokenizer: Tokenizer) -> Prepared:
    """Read the training and validation sets of all tasks and make rows of them.

    Raises `UserError` where a file, a line or a label is not as it should be.
    """
    opened = kinds.open_tasks(config, tokenizer)
    train = {one.task.name: labelled_rows(config, one.task, one.splits["train"], tokenizer) for one in opened}
    validation = [split for one in opened for split in validation_of(config, one, tokenizer)]
    return Prepared(opened, train, tuple(validation))


def validation_of(config: Config, opened: Opened, tokenizer: Tokenizer) -> Iterator[Split]:
    """A task's validation splits, its own first."""
    for number, name in enumerate(name for name in opened.splits if name != "train"):
        examples = opened.splits[name]
        rows = labelled_rows(config, opened.task, examples, tokenizer)
        yield Split(opened.task.name, name.partition("_")[2] if number else "", examples, rows)


def labelled_rows(config: Config, task: Task, examples: Sequence[Any], tokenizer: Tokenizer) -> Rows:
    """Rows with targets, as the encoder takes them."""
    return encoder_rows(config, task.rows(examples, tokenizer, config.finetune.max_seq_length, targets=True))


def encoder_rows(config: Config, rows: Rows) -> Rows:
    """The rows as the encoder takes them: all of token type 0 where it knows no other, as RoBERTa."""
    if config.model.type_vocab_size > 1:
        return rows
    return dataclasses.replace(rows, second=np.diff(rows.offsets).astype(np.int32))


def resolve(config: Config, prepared: Prepared, restored_heads: Sequence[Head]) -> Config:
    """`config` with what follows from the data: steps, warmup, evaluations; and the heads that the tasks need.

    `restored_heads` are those of the model that the run begins with.
    """
    told = config.finetune
    size = config.train.batch_size
    per_epoch = sum(batches.steps_per_epoch(rows, size) for rows in prepared.train.values())
    steps = max(1, math.ceil(told.epochs * per_epoch))
    every = min(steps, max(1, round(per_epoch / told.evaluations_per_epoch)))
    heads = kinds.heads_needed(prepared.opened, restored_heads)
    new = tuple(head for head in heads if head not in restored_heads or (head == "pooler" and told.reinit_pooler))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, heads=heads),
        new_heads=new if config.init_from else (),
        optimizer=dataclasses.replace(config.optimizer, warmup_steps=round(told.warmup_fraction * steps)),
        train=dataclasses.replace(
            config.train,
            steps=steps,
            eval_every_steps=every,
            save_every_steps=every,
            log_every_steps=min(config.train.log_every_steps, every),
        ),
    )


def objective_of(config: Config, prepared: Prepared) -> TaskObjective:
    """What a resolved configuration trains."""
    return TaskObjective(config.model, tuple(one.task for one in prepared.opened), config.finetune.reinit_layers)


def task_feed(config: Config, prepared: Prepared, objective: TaskObjective, tokenizer: Tokenizer) -> Feed:
    """The batches and the held-out figures of a resolved configuration, for `bertjax.train.loop.train`."""
    digest = hashlib.sha256()
    for name in sorted(prepared.train):
        digest.update(name.encode())
        digest.update(prepared.train[name].ids.tobytes())
    return Feed(
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
        examine=partial(examiner, objective, prepared.validation, tokenizer.pad_id),
        facts={
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "training_rows_sha256": digest.hexdigest(),
            "tasks": [kinds.to_plain(one) for one in prepared.opened],
        },
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
    """Train a resolved configuration in `run_dir`, or go on, as `bertjax.train.loop.train` says."""
    objective = objective_of(config, prepared)
    feed = task_feed(config, prepared, objective, tokenizer)
    return train(config, run_dir, feed, objective, progress=progress, on_evaluation=on_evaluation)


def choose_thresholds(run_dir: epath.Path, evaluated: Iterable[tuple[Task, Split, Evaluated]]) -> None:
    """Add to `result.json` the null threshold of each task of spans that has one, as its own validation set says."""
    chosen = {
        task.name: choose_threshold(found.predictions, split.examples)
        for task, split, found in evaluated
        if isinstance(task, Spans) and task.version_2 and not split.name
    }
    if chosen:
        result = read_json(run_dir / checkpoint.RESULT)
        _write_result(run_dir, {**result, "null_thresholds": chosen})


def write_result(config: Config, run_dir: epath.Path, step: int) -> dict[str, Any]:
    """Name the checkpoint that counts in `result.json`: the one with the best score, or that of the last `step`.

    Returns what was written: `step`, `figures` on the validation set at that step.
    """
    rows = [row for row in read_rows(run_dir) if row["split"] == "validation" and row["step"] <= step]
    kept = [row for row in rows if (run_dir / checkpoint.FOLDER / str(row["step"])).exists()]
    worth = lambda row: -math.inf if row["score"] is None else row["score"]  # noqa: E731
    best = max(kept, key=worth) if config.finetune.restore_best else kept[-1]
    figures = {name: value for name, value in best.items() if name not in ("step", "split")}
    result = {"step": best["step"], "figures": figures, "evaluations": len(rows)}
    _write_result(run_dir, result)
    return result


def _write_result(run_dir: epath.Path, result: dict[str, Any]) -> None:
    write_whole(run_dir / checkpoint.RESULT, (json.dumps(result, indent=1) + "\n").encode())
