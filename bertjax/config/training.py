"""The optimizer, the loop and the devices."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from bertjax.config.range_checks import fraction, positive
from bertjax.errors import check


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer, its learning-rate schedule and gradient clipping."""

    algorithm: Literal["adamw", "lamb", "bert"] = "adamw"
    """AdamW (arXiv 1711.05101); LAMB (arXiv 1904.00962), for large batches; or the original BERT's,
    AdamW without bias correction.
    """
    peak_learning_rate: float = 1e-4
    """Learning rate at the end of the warmup."""
    schedule: Literal["linear", "cosine", "constant", "inverse_sqrt", "step", "multistep"] = (
        "linear"
    )
    """Shape after the warmup. linear and cosine fall to end_learning_rate at train.steps;
    inverse_sqrt goes as sqrt(warmup_steps / step); step multiplies by decay_factor every
    decay_steps, multistep at each of milestones."""
    warmup_steps: int = 10_000
    """Steps of linear warmup from 0."""
    end_learning_rate: float = 0.0
    """Where linear and cosine end."""
    decay_steps: int = 0
    """Steps between the drops of schedule=step."""
    milestones: tuple[int, ...] = ()
    """Steps at which schedule=multistep drops, ascending."""
    decay_factor: float = 0.1
    """Multiplier at each drop."""
    b1: float = 0.9
    """Decay of the first moment."""
    b2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-6
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay; none on biases and layer norms."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0: no clipping."""
    layer_decay: float = 1.0
    """Each layer's learning rate is that of the layer above it times this, the embeddings' the last
    (arXiv 2006.05987).
    """
    freeze: Literal["none", "embeddings", "encoder"] = "none"
    """What stays as it is: nothing; the embeddings; the embeddings, the layers and the pooler."""
    freeze_layers: int = 0
    """The lowest layers that stay as they are, and the embeddings with them."""
    mixout: float = 0.0
    """Probability that a weight of the encoder is, for a step, as it was when the run began (arXiv
    1909.11299).
    """

    def __post_init__(self) -> None:
        positive("optimizer", self, "peak_learning_rate", "eps", "decay_factor")
        fraction("optimizer", self, "b1", "b2")
        for name in ("warmup_steps", "end_learning_rate", "weight_decay", "max_grad_norm"):
            check(
                getattr(self, name) >= 0,
                where=f"optimizer.{name}",
                found=getattr(self, name),
                expected="0 or more",
            )
        check(
            0 < self.layer_decay <= 1,
            where="optimizer.layer_decay",
            found=self.layer_decay,
            expected="above 0, to 1",
        )
        check(
            0 <= self.mixout < 1,
            where="optimizer.mixout",
            found=self.mixout,
            expected="a number from 0 to below 1",
        )
        check(
            self.freeze_layers >= 0,
            where="optimizer.freeze_layers",
            found=self.freeze_layers,
            expected="0 or more",
        )
        if self.schedule == "step":
            positive("optimizer", self, "decay_steps")
        if self.schedule == "multistep":
            ascending = list(self.milestones) == sorted(set(self.milestones)) and self.milestones
            check(
                ascending,
                where="optimizer.milestones",
                found=self.milestones,
                expected="ascending steps, at least one",
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop: how long, how large a batch, and what is watched and kept."""

    steps: int = 1_000_000
    """Batches of `batch_size` rows: optimizer updates, but where the batch grows."""
    batch_size: int = 256
    """Rows in a global batch, over all devices and accumulation steps."""
    batch_size_schedule: Literal["constant", "ramp", "adaptive"] = "constant"
    """How the batch of an update grows to `max_batch_size`, by doubling: not; by the step (ramp);
    where the gradient noise scale, measured over the gradient accumulation's parts, has reached
    twice its size (adaptive, arXiv 1812.06162).
    """
    max_batch_size: int = 0
    """Rows in the largest batch of a schedule that grows: `batch_size` times a power of two."""
    batch_size_steps: int = 1_000
    """ramp: the step from which the batch is the largest; adaptive: steps between looks at the
    noise scale.
    """
    gradient_accumulation_steps: int = 1
    """Parts that the batch is worked in, one after another, to save memory; same gradient."""
    log_every_steps: int = 100
    """Steps between lines of the log; metrics.jsonl has every step all the same."""
    eval_every_steps: int = 5_000
    """Steps between held-out evaluations."""
    eval_max_batches: int = 0
    """Batches of a held-out evaluation while training; 0: all."""
    save_every_steps: int = 5_000
    """Steps between checkpoints; the best is known only where an evaluation falls on the same step."""
    keep_checkpoints: int = 3
    """Latest checkpoints to keep; the best by held-out loss is kept beside them."""
    max_nonfinite_steps: int = 5
    """Updates in a row that may be skipped for a loss or gradient that is not finite, before the
    run ends.
    """
    overfit_evaluations: int = 3
    """Evaluations in a row with rising held-out and falling training loss, before a warning."""
    prefetch_batches: int = 4
    """Batches that the input pipeline holds ready."""

    def __post_init__(self) -> None:
        others = ("eval_max_batches", "max_batch_size", "batch_size_schedule")
        positive("train", self, *(f.name for f in dataclasses.fields(self) if f.name not in others))
        check(
            self.eval_max_batches >= 0,
            where="train.eval_max_batches",
            found=self.eval_max_batches,
            expected="0 (all) or more",
        )
        check(
            self.batch_size % self.gradient_accumulation_steps == 0,
            where="train.batch_size",
            found=self.batch_size,
            expected=f"a multiple of train.gradient_accumulation_steps ({self.gradient_accumulation_steps})",
        )
        if self.batch_size_schedule != "constant":
            self._check_growth()

    def _check_growth(self) -> None:
        times, rest = divmod(self.max_batch_size, self.batch_size)
        check(
            rest == 0 and times > 1 and times.bit_count() == 1,
            where="train.max_batch_size",
            found=self.max_batch_size,
            expected=f"train.batch_size ({self.batch_size}) times a power of two, for batch_size_schedule "
            f"{self.batch_size_schedule}",
        )
        parts = self.gradient_accumulation_steps
        measures = self.batch_size_schedule != "adaptive" or parts > 1
        expected = (
            "2 or more, between whose gradients batch_size_schedule adaptive measures the noise"
        )
        check(measures, where="train.gradient_accumulation_steps", found=parts, expected=expected)


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How the devices are laid out; one axis may be -1, which takes the devices that are left."""

    replica: int = 1
    """Slices that share the batch, each with all the parameters: the axis that crosses the slow
    network.
    """
    data: int = -1
    """Devices that share the batch, each with all the parameters."""
    fsdp: int = 1
    """Devices that share the batch and the parameters."""
    tensor: int = 1
    """Devices that share each matrix product: its heads, its feed-forward width, its vocabulary."""
    sequence: int = 1
    """Devices that share each row: long inputs, each device a stretch of them."""

    def __post_init__(self) -> None:
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
