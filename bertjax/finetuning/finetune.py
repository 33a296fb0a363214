"""Fine-tuning: open the tasks, count the steps, and give the training loop batches and figures."""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config, Head, OptimizerConfig, TrainConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.finetuning import batches
from bertjax.finetuning.baseline import baseline_of, is_constant
from bertjax.finetuning.batches import BatchShape
from bertjax.finetuning.data_digests import training_digest, validation_digests
from bertjax.finetuning.distillation import taught
from bertjax.finetuning.evaluate import Assessed, Split, task_evaluator
from bertjax.finetuning.load import THRESHOLDS
from bertjax.finetuning.objective import TaskObjective
from bertjax.finetuning.signatures import SIGNATURES, signatures_of
from bertjax.model.functional import Params
from bertjax.parallel import hosts
from bertjax.progress import Progress, silent
from bertjax.storage import read_json, write_whole
from bertjax.tasks import registry
from bertjax.tasks.registry import OpenedTask, kind_of
from bertjax.tasks.task import EncodedExamples, Task
from bertjax.training import checkpoint
from bertjax.training.batch_source import BatchSource
from bertjax.training.loop import Outcome, train
from bertjax.training.objective import NOTHING
from bertjax.training.optimization.sparsity import check_zeros, is_reached
from bertjax.training.provenance import data_record
from bertjax.types import Batch

log = logging.getLogger("bertjax")

# Field of a checkpoint's `meta` and of `result.json`.
DIGEST = data_record.ROWS
SPARSITY = "sparsity"  # field of `result.json`


@dataclass(frozen=True)
class Prepared:
    """Tasks with their data, ready to be trained."""

    opened: tuple[OpenedTask, ...]
    train: Mapping[str, EncodedExamples]
    """Encoded training examples by task."""
    validation: tuple[Split, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all training rows with their targets, hexadecimal."""
        return training_digest(self.train)

    @cached_property
    def baseline(self) -> float | None:
        """Score of the majority-class baseline; see `bertjax.finetuning.baseline.baseline_of`."""
        return baseline_of(self._tasks, self._own_validation)

    def is_constant(self, figures: Mapping[str, float]) -> bool:
        """Return whether validation figures show one answer for all (`baseline.is_constant`)."""
        return is_constant(self._tasks, self._own_validation, figures)

    @property
    def _tasks(self) -> list[Task]:
        return [opened.task for opened in self.opened]

    @property
    def _own_validation(self) -> dict[str, Sequence[Any]]:
        return {split.task: split.examples for split in self.validation if not split.name}

    @cached_property
    def validation_digests(self) -> dict[str, str]:
        """SHA-256 of the rows of each validation set with their targets, by its name."""
        return validation_digests(self.validation)

    @cached_property
    def signatures(self) -> dict[str, str]:
        """How the validation figures are computed, by the figures' names."""
        return signatures_of(self.opened, self.validation)


def prepare(config: Config, tokenizer: Tokenizer) -> Prepared:
    """Read and encode the training and validation sets of all tasks.

    Raises `UserError` for an invalid file, line or label.
    """
    opened_tasks = registry.open_tasks(config, tokenizer)
    length = config.finetune.max_seq_length
    encoded = {}
    validation = []
    for opened in opened_tasks:
        task = opened.task
        encoded[task.name] = task.encode(opened.splits["train"], tokenizer, length, targets=True)
    for opened in opened_tasks:
        for name, examples in opened.splits.items():
            if name != "train":
                split = validation_split(config, opened.task, name, examples, tokenizer)
                validation.append(split)
    return Prepared(opened_tasks, encoded, tuple(validation))


def validation_split(
    config: Config, task: Task, name: str, examples: Sequence[Any], tokenizer: Tokenizer
) -> Split:
    """Encode the labelled examples of the split `name`.

    The task's own split, `validation` or MNLI's `validation_matched`, has an empty name in the
    names of figures; `validation_mismatched` is `mismatched`.
    """
    part = name.partition("_")[2]
    encoded = task.encode(examples, tokenizer, config.finetune.max_seq_length, targets=True)
    return Split(task.name, "" if part == "matched" else part, examples, encoded)


def resolve(config: Config, prepared: Prepared, restored_heads: Sequence[Head]) -> Config:
    """Return `config` with the settings that depend on the data: steps, warmup, evaluations, heads.

    `restored_heads` are the heads of the initial model. Raises `UserError` if the user has set a
    setting that depends on the data.
    """
    options = config.finetune
    _check_unset(config)
    _check_quantizable(config, prepared)
    # Of several tasks, an epoch has as many steps as one pass over each of them needs. How often
    # each is drawn is another matter: `task_exponent`.
    steps_per_epoch = sum(
        batches.steps_per_epoch(encoded, config.train.batch_size)
        for encoded in prepared.train.values()
    )
    # `epochs` may be a fraction; a run of 0 steps would have no checkpoint to select.
    steps = max(1, math.ceil(options.epochs * steps_per_epoch))
    # Not after the last step: a run without an evaluation has no checkpoint to select.
    every = min(steps, max(1, round(steps_per_epoch / options.evaluations_per_epoch)))
    heads = registry.heads_needed(
        prepared.opened, restored_heads, token_pooler=config.model.token_pooler
    )
    # Without a model to start from, all heads are new anyway.
    new_heads = _new_heads(config, heads, restored_heads) if config.init_from else ()
    return config.replace(
        model={"heads": heads},
        new_heads=new_heads,
        optimizer={"warmup_steps": round(options.warmup_fraction * steps)},
        train={
            "steps": steps,
            "eval_every_steps": every,
            "save_every_steps": every,
            "log_every_steps": min(config.train.log_every_steps, every),
        },
    )


def _new_heads(
    config: Config, heads: Sequence[Head], restored_heads: Sequence[Head]
) -> tuple[Head, ...]:
    """Return those of `heads` that begin with random parameters."""
    new = [head for head in heads if head not in restored_heads]
    if "pooler" in new and config.model.pooler_is_mlm_transform and "mlm" in restored_heads:
        new.remove("pooler")
    # The pooler may begin new although it was pretrained, as in arXiv 2006.05987.
    if "pooler" in heads and config.finetune.reinit_pooler and "pooler" not in new:
        new.append("pooler")
    if config.model.pooler == "none" and "pooler" in new:
        new.remove("pooler")
    check(
        "pooler" not in new or config.optimizer.freeze != "encoder",
        where="optimizer.freeze",
        found=config.optimizer.freeze,
        expected="another value for a model without a pooler: what is random must be trained",
    )
    return tuple(new)


def _check_quantizable(config: Config, prepared: Prepared) -> None:
    """Raise `UserError` for rounding that no program would have afterwards."""
    for opened in prepared.opened:
        has_program = kind_of(opened.task).task_head(opened.task) is not None
        check(
            has_program or config.finetune.quantization_aware == "none",
            where="finetune.quantization_aware",
            found=config.finetune.quantization_aware,
            expected=f"none for {opened.task.name}: a decoder is in no program of integers",
        )


def _check_unset(config: Config) -> None:
    """Raise `UserError` for a setting that would be replaced by what follows from the data."""
    for name in ("steps", "eval_every_steps", "save_every_steps"):
        value = getattr(config.train, name)
        check(
            # The default cannot be told from a value that was not given.
            value == getattr(TrainConfig, name),
            where=f"train.{name}",
            found=value,
            expected="finetune.epochs, which sets it",
        )
    warmup_steps = config.optimizer.warmup_steps
    check(
        # 0 is what the presets for fine-tuning have.
        warmup_steps in (0, OptimizerConfig.warmup_steps),
        where="optimizer.warmup_steps",
        found=warmup_steps,
        expected="finetune.warmup_fraction",
    )


def objective_of(config: Config, prepared: Prepared) -> TaskObjective:
    """Return the objective of a resolved configuration."""
    tasks = tuple(opened.task for opened in prepared.opened)
    options = config.finetune
    return TaskObjective(
        config.model,
        tasks,
        options.reinit_layers,
        quantization_aware=options.quantization_aware,
    )


def training_shape(config: Config, tokenizer: Tokenizer) -> BatchShape:
    """Return the shape of the batches that a run is trained on."""
    options = config.finetune
    return BatchShape(
        config.train.batch_size,
        options.length_buckets,
        options.max_seq_length,
        tokenizer.pad_id,
    )


def task_source(
    config: Config, prepared: Prepared, objective: TaskObjective, tokenizer: Tokenizer
) -> BatchSource:
    """Return the batches and the evaluator of a resolved configuration, for the training loop."""
    options, shape = config.finetune, training_shape(config, tokenizer)

    def train_batches(start: int, row_indices: np.ndarray) -> Iterator[Batch]:
        return batches.train_batches(
            prepared.train,
            shape,
            steps=config.train.steps,
            seed=config.seed,
            task_exponent=options.task_exponent,
            start=start,
            row_indices=row_indices,
        )

    return BatchSource(
        train=train_batches,
        make_evaluator=partial(task_evaluator, objective, prepared.validation, tokenizer.pad_id),
        facts=facts_of(prepared, tokenizer),
    )


def facts_of(prepared: Prepared, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what the `meta` of checkpoints says of the tasks and their data."""
    return {
        data_record.FINGERPRINT: tokenizer.fingerprint,
        data_record.DATA: prepared.validation_digests,
        DIGEST: prepared.digest,
        # Labels follow from the training data. With these a checkpoint is loaded without the data.
        "tasks": [registry.to_plain(opened.task) for opened in prepared.opened],
    }


def check_finished_on(run_dir: epath.Path, prepared: Prepared) -> None:
    """Raise `UserError` if the run has finished, on other training examples.

    A sweep removes the checkpoints of finished runs, and leaves their results. Of a run that is not
    finished `data_record.check_same_data` asks the newest checkpoint.
    """
    path = run_dir / checkpoint.RESULT
    if not path.exists():
        return
    recorded = read_json(path).get(DIGEST)
    if recorded is None:
        log.info("%s does not record the training examples, so they are not compared", path)
    check(
        recorded in (None, prepared.digest),
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
    """Train a resolved configuration in `run_dir`, or continue, by `bertjax.training.loop.train`.

    Raises `UserError` where the run has finished on other training examples, and as the loop does.
    """
    check_finished_on(run_dir, prepared)
    objective = objective_of(config, prepared)
    # Figures are those of the labels, also with a teacher.
    source = task_source(config, prepared, objective, tokenizer)
    given = NOTHING
    if config.distill.teacher:
        objective, source, given = taught(config, objective, source)
    return train(
        config,
        run_dir,
        source,
        objective,
        given=given,
        progress=progress,
        on_evaluation=on_evaluation,
    )


def choose_thresholds(run_dir: epath.Path, assessed: Assessed) -> bool:
    """Add to `result.json` the decision threshold of each task that has one.

    It is chosen on the task's own validation set. Returns whether there is any: the figures change
    with it.
    """
    chosen: dict[str, float] = {}
    for task, split, evaluated in assessed:
        if split.name:
            continue
        threshold = kind_of(task).choose_threshold(task, evaluated.predictions, split.examples)
        if threshold is not None:
            chosen[task.name] = threshold
    if chosen:
        result_before = read_json(run_dir / checkpoint.RESULT)
        _write_result(run_dir, {**result_before, THRESHOLDS: chosen})
    return bool(chosen)


def record_sparsity(config: Config, run_dir: epath.Path, params: Params) -> None:
    """Add to `result.json` the share of zeros in the layers' kernels, if it was asked for.

    `params` are those of the selected checkpoint, which are checked. The first process writes.
    """
    if not config.finetune.makes_sparse:
        return
    share = check_zeros(config, params)
    if hosts.is_first():
        log.info("%.4g %% of the weights in the layers' kernels are 0", 100 * share)
        _write_result(run_dir, {**read_json(run_dir / checkpoint.RESULT), SPARSITY: share})


def write_result(
    config: Config,
    run_dir: epath.Path,
    evaluations: Sequence[Mapping[str, Any]],
    prepared: Prepared,
) -> dict[str, Any]:
    """Select a checkpoint, and name it in `result.json`; return what was written.

    `evaluations` are those of the outcome: `metrics.jsonl` need not have them.
    The checkpoint with the best score is selected, of equal scores the latest; if
    `finetune.restore_best` is False, the last one. One that has not reached the configuration's
    sparsity is not selected. `result.json` has its `step`, the `figures` on
    the validation sets at that step, their `signatures`, and the number of `evaluations`.
    """
    folder = run_dir / checkpoint.FOLDER
    reached = [entry for entry in evaluations if is_reached(config, entry["step"])]
    # `train.keep_checkpoints` has removed the folders of other evaluations.
    kept = [entry for entry in reached if (folder / str(entry["step"])).exists()]
    # Of equal scores the latest, which is the one that `Checkpoints` keeps, however few it keeps:
    # `max` takes the first.
    latest_first = kept[::-1]
    selected = max(latest_first, key=_score_of) if config.finetune.restore_best else kept[-1]
    figures = {name: value for name, value in selected.items() if name not in ("step", "split")}
    result = {
        "step": selected["step"],
        "figures": figures,
        "evaluations": len(evaluations),
        DIGEST: prepared.digest,
        SIGNATURES: prepared.signatures,
    }
    _write_result(run_dir, result)
    return result


def _score_of(entry: Mapping[str, Any]) -> float:
    """Return the score of an evaluation; one that was not finite is null in `metrics.jsonl`."""
    score = entry["score"]
    return -math.inf if score is None else score


def _write_result(run_dir: epath.Path, result: dict[str, Any]) -> None:
    write_whole(run_dir / checkpoint.RESULT, (json.dumps(result, indent=1) + "\n").encode())
