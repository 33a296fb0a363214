"""Configuration of the optimizer, the training loop and the device mesh."""

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from bertjax.config.field_types import check_fields
from bertjax.config.optimization.algorithms import AlgorithmConfig, check_algorithm
from bertjax.config.optimization.budget import budget_seconds
from bertjax.config.range_checks import (
    fit_int32,
    fraction_below_one,
    not_negative,
    positive,
)
from bertjax.errors import check


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(AlgorithmConfig):
    """The optimizer, its learning-rate schedule, gradient clipping and frozen parameters."""

    # Rate, warmup, decay rates and weight decay are those of BERT's paper (arXiv 1810.04805,
    # appendix A.2).
    peak_learning_rate: float = 1e-4
    """Learning rate at the end of the warmup."""
    schedule: Literal[
        "linear", "cosine", "sqrt", "wsd", "constant", "inverse_sqrt", "step", "multistep"
    ] = "linear"
    """Shape of the learning rate after the warmup.
    linear, cosine, sqrt: it falls to end_learning_rate at step train.steps; sqrt by the square root
    of the time, 1 - sqrt(t). wsd: it stays at its peak, and falls during the last decay_steps in
    the way that decay_shape names. constant: it stays the same. inverse_sqrt: peak_learning_rate *
    sqrt(warmup_steps / step). step: it is multiplied by decay_factor every decay_steps steps.
    multistep: it is multiplied by decay_factor at each of milestones.
    """
    warmup_steps: int = 10_000
    """Number of steps during which the learning rate rises linearly from 0 to its peak."""
    warmup_tokens: int = 0
    """The same as a number of tokens (rows times their length); 0: warmup_steps counts."""
    end_learning_rate: float = 0.0
    """Schedules linear, cosine, sqrt and wsd: learning rate at the end."""
    schedule_steps: int = 0
    """Number of steps that the schedule is made for; 0: train.steps, or those of its phases.
    linear, cosine, sqrt and wsd have reached end_learning_rate by then, and stay there.
    """
    decay_steps: int = 0
    """Schedule step: number of steps between two drops. Schedule wsd: number of steps of the fall
    at the end (arXiv 2404.06395, 2405.18392).
    """
    decay_tokens: int = 0
    """Schedule wsd: the same as a number of tokens; 0: decay_steps counts."""
    decay_shape: Literal["linear", "cosine", "sqrt"] = "sqrt"
    """Schedule wsd: shape of the fall, as the schedules of these names."""
    milestones: tuple[int, ...] = ()
    """Schedule multistep: the steps of the drops, ascending."""
    decay_factor: float = 0.1
    """Schedules step and multistep: the factor of each drop."""
    restarts: tuple[int, ...] = ()
    """Schedules linear, cosine and sqrt: the steps at which the schedule starts again, ascending.
    Before the first restart the learning rates are those of a run of so many steps. From each
    restart on, the rate rises again in warmup_steps from where it is to its peak, and falls until
    the next restart or the end of the run. With the steps of a finished run as a restart, the run
    can be continued to a larger train.steps.
    """
    weight_decay: float = 0.01
    """Decoupled weight decay; it is not applied to biases and layer norms."""
    # As the original BERT (optimization.py, create_optimizer).
    max_grad_norm: float = 1.0
    """Maximum global norm of the gradient; larger gradients are scaled down; 0: no clipping."""
    layer_decay: float = 1.0
    """Layer-wise learning-rate decay: above 0, up to 1; 1: no decay (arXiv 2006.05987).
    The learning rate of a layer is layer_decay * (learning rate of the layer above it). The
    embeddings count as the lowest layer.
    """
    freeze: Literal["none", "embeddings", "encoder"] = "none"
    """Frozen parameters: none, the embeddings, or all of the encoder.
    encoder: the embeddings, the layers and the pooler.
    """
    freeze_layers: int = 0
    """Number of lowest layers that are frozen, together with the embeddings; 0: none."""
    mixout: float = 0.0
    """Mixout probability: 0 to below 1 (arXiv 1909.11299).
    In each step, each weight of the encoder is replaced with this probability by the value that it
    had at the start of the run.
    """

    def __post_init__(self) -> None:
        check_fields("optimizer", self)
        fit_int32("optimizer", self)
        positive("optimizer", self, "peak_learning_rate", "decay_factor")
        check_algorithm(self)
        not_negative(
            "optimizer", self, "warmup_steps", "end_learning_rate", "weight_decay", "max_grad_norm"
        )
        not_negative("optimizer", self, "decay_steps", "schedule_steps")
        not_negative("optimizer", self, "warmup_tokens", "decay_tokens")
        check(
            0 < self.layer_decay <= 1,
            where="optimizer.layer_decay",
            found=self.layer_decay,
            expected="above 0, to 1",
        )
        # At 1 the mean of a weight could not be kept: mixout divides by 1 - p.
        fraction_below_one("optimizer", self, "mixout")
        not_negative("optimizer", self, "freeze_layers")
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.schedule == "step":
            positive("optimizer", self, "decay_steps")
        if self.schedule == "wsd" and not self.decay_tokens:
            positive("optimizer", self, "decay_steps")
        check(
            self.schedule == "wsd" or not self.decay_tokens,
            where="optimizer.decay_tokens",
            found=self.decay_tokens,
            expected=f"0, for schedule {self.schedule}",
        )
        if self.schedule == "multistep":
            ascending = list(self.milestones) == sorted(set(self.milestones))
            check(
                ascending and self.milestones,
                where="optimizer.milestones",
                found=self.milestones,
                expected="ascending steps, at least one",
            )
        if self.restarts:
            self._check_restarts()

    def _check_restarts(self) -> None:
        check(
            self.schedule in ("linear", "cosine", "sqrt"),
            where="optimizer.restarts",
            found=self.restarts,
            expected=f"none: schedule {self.schedule} has no restarts",
        )
        check(
            not self.schedule_steps and not self.warmup_tokens,
            where="optimizer.restarts",
            found=self.restarts,
            expected="none beside schedule_steps or warmup_tokens",
        )
        # In a shorter stretch the rate would not fall from its peak again.
        stretches = [end - begin for begin, end in pairwise((0, *self.restarts))]
        check(
            min(stretches) > self.warmup_steps,
            where="optimizer.restarts",
            found=self.restarts,
            expected="ascending steps, more than optimizer.warmup_steps"
            f" ({self.warmup_steps}) apart",
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop: its length, its batches, and how often it evaluates and saves."""

    # Length and batch size are those of BERT's paper (arXiv 1810.04805, appendix A.2).
    steps: int = 1_000_000
    """Length of the run in batches of batch_size rows.
    Each batch gives one update of the parameters, unless batch_size_schedule joins several batches
    into one update.
    """
    budget: str = ""
    """Wall-clock time of the run, such as 24h, 90m or 3600s; empty: none.
    The schedules of learning rate and mask rate are gone through in this time instead of in steps
    steps: when a quarter of the time has passed, they are where they would be after a quarter of
    steps. The run ends when the time is used, or after steps steps (docs/phases.md).
    """
    batch_size: int = 256
    """Global batch size: number of rows, summed over all devices and accumulation steps."""
    batch_size_schedule: Literal["constant", "ramp", "adaptive"] = "constant"
    """Growth of the batch of an update: it doubles until it has max_batch_size rows.
    constant: it does not grow. ramp: it doubles at fixed steps. adaptive: it doubles when the
    gradient noise scale (arXiv 1812.06162) has reached twice the batch size. The noise scale is
    measured between the parts of gradient accumulation.
    """
    max_batch_size: int = 0
    """Schedules ramp and adaptive: size of the largest batch; batch_size times a power of 2."""
    batch_size_steps: int = 1_000
    """Schedule ramp: the step from which the batch has its largest size.
    Schedule adaptive: number of steps between two checks of the noise scale.
    """
    batch_size_tokens: int = 0
    """Schedule ramp: the same as a number of tokens (rows times their length); 0: batch_size_steps
    counts.
    """
    gradient_accumulation_steps: int = 1
    """Number of parts of a batch that are computed one after another, to save memory.
    batch_size must be a multiple of it. The gradient is still that of the whole batch.
    """
    dropout_numbering: Literal["row", "part"] = "row"
    """What dropout's random bits are numbered by, if a batch is computed in several parts.
    row: the row's number in the batch, so the number of parts does not change the masks. part: the
    number of the part, as in runs that began before this setting existed. A run that is continued
    keeps what it began with. model.dropout_bits rbg always numbers by part.
    """
    log_every_steps: int = 100
    """Number of steps between two lines of the log; metrics.jsonl has a line for every step."""
    eval_every_steps: int = 5_000
    """Number of steps between two held-out evaluations."""
    eval_max_batches: int = 0
    """Maximum number of batches of a held-out evaluation during training; 0: all."""
    save_every_steps: int = 5_000
    """Number of steps between two checkpoints.
    A checkpoint can become the best one only if its step is evaluated too.
    """
    keep_checkpoints: int = 3
    """Number of latest checkpoints that are kept; the one with the best held-out loss is too."""
    keep_every_steps: int = 0
    """Number of steps between two checkpoints that are saved and never removed; 0: none.
    Like keep_every_tokens and keep_steps it is beside the latest and the best ones.
    """
    keep_every_tokens: int = 0
    """The same as a number of tokens (rows times their length); 0: none."""
    keep_steps: tuple[int, ...] = ()
    """Steps whose checkpoints are saved and never removed; 0 is the state before the first update.
    """
    ema_decay: float = 0.0
    """Decay rate, by update, of an average of the weights beside them: 0 (none) to below 1.
    `bertjax average RUN --ema` makes a run of it. It takes the memory of the weights once more.
    """
    max_nonfinite_steps: int = 5
    """Number of updates in a row with a non-finite loss or gradient that end the run.
    Fewer such updates are skipped.
    """
    overfit_evaluations: int = 3
    """Number of evaluations in a row before a warning that the model overfits.
    They count if the held-out loss rises while the training loss falls.
    """
    prefetch_batches: int = 4
    """Number of batches that the input pipeline reads ahead."""
    data_changes: tuple[int, ...] = ()
    """Steps from which the run goes on with other data than before, ascending.
    A run that is continued on other data than its newest checkpoint records is refused, unless the
    step of that checkpoint is listed here. The checkpoints after it record the change.
    """
    damaged_checkpoint: Literal["previous", "refuse"] = "previous"
    """What a run does that finds its newest checkpoint damaged when it is continued.
    previous: it says so, renames the folder to STEP.damaged, and goes on from the checkpoint before
    it. refuse: it ends. Without another checkpoint it always ends.
    """

    def __post_init__(self) -> None:
        check_fields("train", self)
        fit_int32("train", self)
        may_be_zero = (
            "eval_max_batches",
            "max_batch_size",
            "batch_size_tokens",
            "keep_every_steps",
            "keep_every_tokens",
        )
        numbers = [
            field.name
            for field in dataclasses.fields(self)
            if field.type is int and field.name not in may_be_zero
        ]
        positive("train", self, *numbers)
        fraction_below_one("train", self, "ema_decay")
        if self.budget:
            budget_seconds(self.budget)
        not_negative("train", self, "eval_max_batches", expected="0 (all) or more")
        not_negative("train", self, "max_batch_size", "batch_size_tokens")
        not_negative("train", self, "keep_every_steps", "keep_every_tokens")
        check(
            all(step >= 0 for step in self.keep_steps),
            where="train.keep_steps",
            found=self.keep_steps,
            expected="steps, 0 or more",
        )
        check(
            self.batch_size_schedule == "ramp" or not self.batch_size_tokens,
            where="train.batch_size_tokens",
            found=self.batch_size_tokens,
            expected=f"0, for batch_size_schedule {self.batch_size_schedule}",
        )
        parts = self.gradient_accumulation_steps
        check(
            self.batch_size % parts == 0,
            where="train.batch_size",
            found=self.batch_size,
            expected=f"a multiple of train.gradient_accumulation_steps ({parts})",
        )
        if self.batch_size_schedule != "constant":
            self._check_growth()
        changes = list(self.data_changes)
        check(
            changes == sorted(set(changes)) and min(changes, default=1) > 0,
            where="train.data_changes",
            found=self.data_changes,
            expected="ascending steps above 0",
        )

    def _check_growth(self) -> None:
        multiple, rest = divmod(self.max_batch_size, self.batch_size)
        # A power of two has one bit.
        check(
            rest == 0 and multiple > 1 and multiple.bit_count() == 1,
            where="train.max_batch_size",
            found=self.max_batch_size,
            expected=f"train.batch_size ({self.batch_size}) times a power of two, for"
            f" batch_size_schedule {self.batch_size_schedule}",
        )
        # The noise is estimated from the differences between the gradients of the parts, so at
        # least two parts are necessary.
        check(
            self.batch_size_schedule != "adaptive" or self.gradient_accumulation_steps > 1,
            where="train.gradient_accumulation_steps",
            found=self.gradient_accumulation_steps,
            expected="2 or more, between whose gradients batch_size_schedule adaptive measures the"
            " noise",
        )


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The device mesh: number of devices along each axis.

    One axis may be -1, which takes all devices that are left.
    """

    replica: int = 1
    """Number of slices; like data, but across the slow network between slices."""
    data: int = -1
    """Number of devices that share the rows of a batch; each holds all parameters."""
    fsdp: int = 1
    """Number of devices that share the rows of a batch and also the parameters."""
    tensor: int = 1
    """Number of devices that share a matrix product: by heads, feed-forward width or vocabulary."""
    sequence: int = 1
    """Number of devices that share the tokens of each row, for long rows."""

    def __post_init__(self) -> None:
        check_fields("mesh", self)
        fit_int32("mesh", self)
        sizes = dataclasses.asdict(self)
        for name, size in sizes.items():
            check(
                size == -1 or size > 0,
                where=f"mesh.{name}",
                found=size,
                expected="-1 (what is left) or a number above 0",
            )
        free = [name for name, size in sizes.items() if size == -1]
        check(
            len(free) <= 1,
            where="mesh",
            found=f"-1 for {' and '.join(free)}",
            expected="-1 for one axis at most",
        )
