"""What a run needs in one phase: its batches, its program, its held-out evaluation."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.config.phases.resolution import Phase, phases_of
from bertjax.model.kernels import selection as kernels
from bertjax.parallel import hosts, rules
from bertjax.training.batch_source import BatchSource
from bertjax.training.evaluate import Evaluator
from bertjax.training.objective import Given, Objective
from bertjax.training.optimization.batch_schedule import BatchSchedule
from bertjax.training.optimization.plan import plan_of
from bertjax.training.pretraining import pretraining
from bertjax.training.step import JittedTrainStep, jit_train_step

log = logging.getLogger("bertjax")


@dataclass(frozen=True)
class PhaseRun:
    """A phase of a run on a mesh; a run without phases is one phase.

    The program and the evaluator are made when they are first asked for, so a phase that is over
    costs nothing.
    """

    phases: Sequence[Phase[Config]]
    phase: Phase[Config]
    mesh: Mesh
    source: BatchSource
    schedule: BatchSchedule
    of_run: Objective
    """The objective of a run without phases."""
    given: Given

    @property
    def config(self) -> Config:
        """The configuration that holds in the phase."""
        return self.phase.config

    @cached_property
    def row_indices(self) -> np.ndarray:
        """The rows of each batch that this process reads."""
        return hosts.process_row_indices(self.mesh, self.config.train.batch_size)

    @cached_property
    def objective(self) -> Objective:
        """What the phase minimizes; an objective that phases change is chosen here."""
        if len(self.phases) == 1:
            return self.of_run
        return pretraining(self.config, self.source.vocabulary, self.phase)

    @cached_property
    def train_step(self) -> JittedTrainStep:
        """The program of an update."""
        warn_of_missing_kernels(self.config, rules.MeshLayout(self.mesh))
        plan = plan_of(self.phases, self.phase)
        return jit_train_step(self.config, self.mesh, self.objective, self.given.params, plan)

    @cached_property
    def evaluator(self) -> Evaluator | None:
        """The function from parameters to held-out metrics; None without held-out data."""
        if self.source.make_evaluator is None:
            return None
        return self.source.make_evaluator(self.config, self.mesh)


def phase_runs(
    config: Config,
    mesh: Mesh,
    source: BatchSource,
    objective: Objective,
    given: Given,
    batch_size: Mapping[str, Any] | None,
) -> list[PhaseRun]:
    """Return all phases of a run in their order.

    `objective` is that of a run without phases; `batch_size` is what a checkpoint recorded of the
    growth of the batch.
    """
    phases = phases_of(config)
    sources = source.of_phases or (source,)
    runs = []
    for phase, own in zip(phases, sources, strict=True):
        schedule = BatchSchedule(
            phase.config.train, batch_size, begin=phase.growth.begin, end=phase.end
        )
        runs.append(PhaseRun(phases, phase, mesh, own, schedule, objective, given))
    return runs


def warn_of_missing_kernels(config: Config, layout: rules.MeshLayout) -> None:
    """Log which kernels of `model.kernels` the shapes of a phase do not allow."""
    missing: set[str] = set()
    masked = None
    if not config.finetune.tasks:
        rows = config.train.batch_size // config.train.gradient_accumulation_steps
        masked = (rows, config.data.max_predictions_per_seq)
    for length in config.row_lengths:
        missing.update(kernels.missing(config.model, length, layout, masked))
    if missing:
        named = " nor ".join(sorted(missing))
        log.warning(
            "model.kernels %s: not for %s here, computed as xla", config.model.kernels, named
        )
