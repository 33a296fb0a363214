"""The model of a run with its objective, and batches of the data that it was trained on."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from bertjax.compression.held_out import with_small_batch
from bertjax.config import Config
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.finetuning import batches as task_batches
from bertjax.finetuning import finetune
from bertjax.finetuning.load import load_finetuned
from bertjax.finetuning.objective import TaskObjective
from bertjax.model.functional import Params
from bertjax.parallel import hosts
from bertjax.training import checkpoint
from bertjax.training.batch_source import corpora, prepared_source
from bertjax.training.objective import Objective
from bertjax.training.pretraining import check_heads, pretraining
from bertjax.training.provenance import data_record
from bertjax.training.saved_model import TOKENIZER, for_inference, load_model, saved_tokenizer
from bertjax.training.step import MASKS, random_key
from bertjax.types import Batch


class Source(NamedTuple):
    """The model of a run."""

    config: Config
    run_dir: epath.Path
    folder: epath.Path
    """The checkpoint."""
    params: Params
    """In the memory of the host."""
    tokenizer: Tokenizer | None
    """None where the model was imported without one."""
    tasks: TaskObjective | None
    """The objective of a fine-tuned model."""


def load_source(path: epath.PathLike) -> Source:
    """Load the selected or newest checkpoint of a run, or one checkpoint, with heads of tasks."""
    check(
        not hosts.is_multiprocess(),
        where="prune",
        found=f"{hosts.process_count()} processes",
        expected="one: a model is pruned by a single process",
    )
    run_dir, folder = checkpoint.find_checkpoint(path)
    config = with_small_batch(for_inference(checkpoint.read_checkpoint_config(folder)))
    tokenizer = saved_tokenizer(run_dir, folder) if (run_dir / TOKENIZER).exists() else None
    if not config.finetune.tasks:
        params = jax.device_get(load_model(folder, config).params)
        return Source(config, run_dir, folder, params, tokenizer, None)
    model = load_finetuned(folder, config)
    params = jax.device_get(model.params)
    return Source(config, run_dir, folder, params, tokenizer, model.objective)


class Examples(NamedTuple):
    """Batches of training data, and the objective whose loss they have."""

    objective: Objective
    batches: list[Batch]
    described: str
    """The data in words."""

    @property
    def length(self) -> int:
        """Length of the longest rows."""
        return max(batch["input_ids"].shape[-1] for batch in self.batches)


def training_examples(source: Source, count: int, seed: int) -> Examples:
    """Return `count` batches of the data that the run was trained on, drawn by `seed`, prepared.

    These are the training examples of the tasks or, for a pretrained model, the records of its
    prepared folders. Raises `UserError` if they are not there, or are others than the run's.
    """
    folder, tokenizer = source.folder, source.tokenizer
    check(
        tokenizer is not None,
        where=str(folder),
        found="a model without a tokenizer, and so without data",
        expected="a run that was trained here, for --heads, --mlp and --choose-layers loss",
    )
    assert tokenizer is not None
    config = dataclasses.replace(source.config, seed=seed)
    if source.tasks is not None:
        objective: Objective = source.tasks
        batches = _task_batches(source, config, tokenizer, count)
        described = f"training examples of {', '.join(source.tasks.by_name)}"
    else:
        objective, batches = _record_batches(source, config, tokenizer)
        described = f"records of {', '.join(map(str, corpora(config).values()))}"
    prepared = []
    for step in range(count):
        batch = objective.prepare(next(batches), random_key(seed, step, MASKS))
        prepared.append({name: np.asarray(values) for name, values in batch.items()})
    rows = sum(len(batch["input_ids"]) for batch in prepared)
    return Examples(objective, prepared, f"{rows:,} {described}, seed {seed}")


def _task_batches(
    source: Source, config: Config, tokenizer: Tokenizer, count: int
) -> Iterator[Batch]:
    prepared = finetune.prepare(config, tokenizer)
    recorded = checkpoint.read_meta(source.folder).get(data_record.ROWS)
    check(
        recorded in (None, prepared.digest),
        where=", ".join(config.finetune.tasks),
        found="other training examples",
        expected=f"those that {source.folder} was trained on",
    )
    return task_batches.train_batches(
        prepared.train,
        finetune.training_shape(config, tokenizer),
        steps=count,
        seed=config.seed,
        task_exponent=config.finetune.task_exponent,
        start=0,
        row_indices=np.arange(config.train.batch_size),
    )


def _record_batches(
    source: Source, config: Config, tokenizer: Tokenizer
) -> tuple[Objective, Iterator[Batch]]:
    absent = [str(place) for place in corpora(config).values() if not place.is_dir()]
    check(
        not absent,
        where=str(source.folder),
        found=f"no prepared data at {', '.join(absent)}",
        expected="the records or tasks that the run was trained on, which tell what matters in it",
    )
    check_heads(config)
    records = prepared_source(config, tokenizer)
    data_record.check_evaluated_data(source.folder, config, records.facts, asked=False)
    rows = np.arange(config.train.batch_size)
    return pretraining(config, records.vocabulary), records.train(0, rows)


def has_decoder(source: Source) -> bool:
    """Return whether a task of the model writes text: its decoder has the encoder's sizes."""
    return source.tasks is not None and any(task.generates for task in source.tasks.tasks)
