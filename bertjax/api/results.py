"""Return values of the functions that make, continue or use a run."""

from dataclasses import dataclass
from typing import Any

from etils import epath


@dataclass(frozen=True)
class RunResult:
    """A run when `train` or `finetune` returns."""

    run_dir: epath.Path
    step: int
    """Updates done."""
    stopped: bool
    """True if SIGTERM or SIGINT ended the run early; the same call continues it."""
    checkpoint: epath.Path
    """Folder of the checkpoint at `step`; of a finished fine-tuning, of the selected one."""
    metrics: dict[str, float]
    """Newest held-out metrics; of fine-tuning, those of the selected checkpoint. Losses in nats."""
    report: epath.Path
    """The page `report.html`."""


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of a checkpoint."""

    checkpoint: epath.Path
    metrics: dict[str, float]
    """By name; losses in nats, accuracies from 0 to 1."""


@dataclass(frozen=True)
class SplitPredictions:
    """Predictions of one split of one task."""

    checkpoint: epath.Path
    task: str
    split: str
    """Such as `test` or `validation_matched`."""
    examples: list[Any]
    predictions: list[Any]
    """One for each example; its type is that of the kind of task."""
    files: list[epath.Path]
    """Files written, in the format of the task's field; none without an output folder."""
