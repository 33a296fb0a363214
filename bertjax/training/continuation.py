"""What may change when a run is continued, and what the run keeps from its beginning."""

import logging
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config, to_flat_dict
from bertjax.config.data import mixture_folders
from bertjax.config.phases.phase_text import FIELDS
from bertjax.config.phases.resolution import Phase, phases_of
from bertjax.errors import check
from bertjax.training.optimization.plan import learning_rates

log = logging.getLogger("bertjax")

# Fields that may change between the start of a run and its continuation: they change where and how
# often something is done, not what is computed.
FREE = {
    "data.prepared_dir",
    "data.workers",
    "data.skip_damaged",
    "model.scan_unroll",
    "model.remat",
    "model.kernels",
    "model.sparse_products",
    "model.exported_as",
    "mesh.replica",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "mesh.sequence",
    "train.log_every_steps",
    "train.eval_every_steps",
    "train.eval_max_batches",
    "train.save_every_steps",
    "train.keep_checkpoints",
    "train.keep_every_steps",
    "train.keep_every_tokens",
    "train.keep_steps",
    "train.max_nonfinite_steps",
    "train.overfit_evaluations",
    "train.prefetch_batches",
    # The data themselves are compared with what the checkpoint records of them.
    "train.data_changes",
    "train.damaged_checkpoint",
    # The teacher itself is compared with the digest in the checkpoint.
    "distill.teacher",
    "finetune.keep_gold_tags",
}
# Fields on which the learning rates depend, and nothing else.
SCHEDULE = {
    "train.steps",
    "optimizer.peak_learning_rate",
    "optimizer.schedule",
    "optimizer.warmup_steps",
    "optimizer.warmup_tokens",
    "optimizer.end_learning_rate",
    "optimizer.schedule_steps",
    "optimizer.decay_steps",
    "optimizer.decay_tokens",
    "optimizer.decay_shape",
    "optimizer.milestones",
    "optimizer.decay_factor",
    "optimizer.restarts",
}
ACCUMULATION = "train.gradient_accumulation_steps"


def kept_rules(recorded: Any, config: Config) -> Config:
    """Return `config` with the rules of the run whose `config.json` has the values `recorded`.

    A run whose batches have several parts, and which began before `train.dropout_numbering`
    existed, numbers dropout's bits by part. With one part both rules give the same bits.
    """
    train = recorded.get("train") if isinstance(recorded, dict) else None
    if not isinstance(train, dict):
        return config  # not a run's configuration, which the caller refuses
    numbering = train.get("dropout_numbering")
    if numbering is None:
        one_part = train.get("gradient_accumulation_steps", 1) == 1
        one_batch = train.get("batch_size_schedule", "constant") == "constant"
        numbering = "row" if one_part and one_batch else "part"
    if numbering != "part":
        return config
    return config.replace(train={"dropout_numbering": "part"})


def check_unchanged(path: epath.Path, before: Config, now: Config, made: int) -> None:
    """Raise `UserError` naming a field that must stay as it was and does not.

    `path` is the run's `config.json`, and `made` the number of steps of its newest checkpoint. The
    number of parts of a batch may change where no result depends on it. The learning-rate schedule
    may change where it gives each step that was made the same rate as before.
    """
    values_before, values_now = comparable(before), comparable(now)
    changed = {name for name, value in values_now.items() if values_before[name] != value}
    free = set(FREE)
    if _accumulation_is_free(now):
        free.add(ACCUMULATION)
    if not now.finetune.tasks:
        # Pretraining has no head of a task, and a run may be older than this field of its family.
        free.add("model.token_pooler")
    # With a budget the rates that were made follow from the time, and no other schedule has them.
    by_steps = not (before.train.budget or now.train.budget)
    if changed & SCHEDULE and by_steps and _same_rates(before, now, made):
        free |= SCHEDULE
    for name in values_now:
        check(
            name in free or name not in changed,
            where=f"{path}: {name}",
            found=values_now[name],
            expected=_expected(name, values_before[name], before, now),
        )
    if changed & SCHEDULE:
        log.info("%s", _describe_schedule(before, now, made))


def _accumulation_is_free(config: Config) -> bool:
    """Return True if the number of parts of a batch changes no result but for rounding."""
    # The adaptive schedule measures the noise between the parts.
    if config.train.batch_size_schedule == "adaptive":
        return False
    model = config.model
    random = (
        model.hidden_dropout_prob,
        model.attention_probs_dropout_prob,
        model.embedding_noise,
    )
    return config.dropout_follows_rows or max(random) == 0


def _same_rates(before: Config, now: Config, made: int) -> bool:
    """Return True if the steps that were made have the same learning rates in both."""
    # Without a step nothing has been learnt that the new schedule could continue.
    if made == 0:
        return False
    return bool(np.array_equal(learning_rates(before, made), learning_rates(now, made)))


def _expected(name: str, value: object, before: Config, now: Config) -> str:
    """Return what a refusal names as expected, for a field with this value at the run's start."""
    ways = "or another --run-dir"
    if name == "phases":
        ways = "or another --run-dir, as bertjax branch makes one with other later phases"
    # A shorter run has no step left for a restart. A restart that was made stays.
    if name == "train.steps" and now.train.steps > before.train.steps:
        restarts = " ".join(map(str, (*before.optimizer.restarts, before.train.steps)))
        ways = f"optimizer.restarts {restarts} beside it, {ways}"
    return f"{value}, with which the run began ({ways})"


def _describe_schedule(before: Config, now: Config, made: int) -> str:
    """Return a line that says which learning rates follow the steps that were made."""
    rates = learning_rates(now, max(now.train.steps, made + 1))
    last, peak = rates[now.train.steps - 1], now.optimizer.peak_learning_rate
    restarts = ", ".join(str(step) for step in now.optimizer.restarts) or "none"
    return (
        f"another schedule from step {made} on: {now.train.steps} steps instead of"
        f" {before.train.steps}, {now.optimizer.schedule}, restarts {restarts};"
        f" learning rate {rates[made]:.3g} now, peak {peak:.3g}, {last:.3g} at the end"
    )


def comparable(config: Config) -> dict[str, Any]:
    """Return the values by their dotted names; of `data.mixture` the names of the corpora alone.

    Where their folders are is free, as `data.prepared_dir` is: digests tell what is in them.
    """
    values = _own_values(config)
    if config.phases:
        values["phases"] = tuple(_text_of(config, phase) for phase in phases_of(config))
    return values


def _own_values(config: Config) -> dict[str, Any]:
    values = to_flat_dict(config)
    values["data.mixture"] = tuple(mixture_folders(config.data.mixture))
    return values


def _text_of(config: Config, phase: Phase[Config]) -> str:
    """Return the steps of a phase, and what is computed otherwise in it than `config` says.

    So a length may be given as tokens or as steps, and what is free stays free in a phase.
    """
    whole, own = _own_values(config), _own_values(phase.config)
    words = [f"steps {phase.begin} to {phase.end}"]
    for name in FIELDS:
        if name not in FREE and own[name] != whole[name]:
            words.append(f"{name}={own[name]}")
    return " ".join(words)
