"""Return values of the functions that make, continue or use a run."""

from dataclasses import dataclass
from typing import Any

from etils import epath


@dataclass(frozen=True)
class RunResult:
    """The state of a run at the end of `train` or `finetune`."""

    run_dir: epath.Path
    step: int
    """Number of updates done."""
    stopped: bool
    """True if SIGTERM or SIGINT ended the run early; the same call continues it."""
    checkpoint: epath.Path
    """Folder of the checkpoint at `step` or, if a fine-tuning is finished, of the selected one."""
    metrics: dict[str, float]
    """Newest held-out metrics or, if a fine-tuning is finished, those of the selected checkpoint.

    Losses are in nats.
    """
    report: epath.Path
    """The page `report.html`."""


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of a checkpoint."""

    checkpoint: epath.Path
    metrics: dict[str, float]
    """Values by name; losses are in nats, accuracies from 0 to 1."""


@dataclass(frozen=True)
class SplitPredictions:
    """Predictions of one split of one task."""

    checkpoint: epath.Path
    task: str
    split: str
    """Name of the split, such as `test` or `validation_matched`."""
    examples: list[Any]
    predictions: list[Any]
    """One for each example; the type depends on the kind of task."""
    files: list[epath.Path]
    """Files written, in the usual format of the kind of task; empty without an output folder."""
