"""Answers of `bertjax compile`: an estimate, the largest batch that fits, other layouts."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etils import epath

from bertjax.config import Config
from bertjax.config.data import without_places
from bertjax.config.phases.resolution import Phase, phases_of
from bertjax.errors import check, disk_errors
from bertjax.estimate.answer_fields import FILE
from bertjax.estimate.estimate import Estimate, estimate
from bertjax.estimate.hardware.slices import Slice
from bertjax.estimate.search import batch_unit, candidates, find_boundary, with_batch
from bertjax.storage import write_whole

MAX_UNITS = 2**14
"""Largest batch that is looked for, in units of `batch_unit`: a row a device and accumulation.

A larger batch is of no use to BERT.
"""
NOTE = "The TPU compiler's estimates; nothing here was measured."
GUESS_MARGIN = 0.9
"""Share of the free memory that the first guess of the largest batch should fill."""

EstimateCallback = Callable[[str, Estimate], None]
"""Called as `on_estimate(purpose, estimate)` after each compile."""


@dataclass(frozen=True)
class LargestBatch:
    """The largest batch that fits, found by bisection."""

    batch_size: int
    """Rows over all devices; 0 if not even one unit of `batch_unit` fits."""
    refused: int | None
    """The smallest batch that the compiler refused; None if it refused none."""
    estimate: Estimate | None
    """The estimate for the largest batch; None if nothing fits."""


@dataclass(frozen=True)
class PhaseEstimate:
    """The estimate of a step in one phase of a run."""

    number: int
    """Number of the phase, counted from 1."""
    steps: int
    """Number of its steps."""
    seconds: float | None
    """Time of all of them; None if a step does not fit."""
    estimate: Estimate


@dataclass(frozen=True)
class Answer:
    """The complete answer of `bertjax compile`; `compile.json` has these fields."""

    estimate: Estimate
    """That of the first phase, in a run with phases."""
    phases: tuple[PhaseEstimate, ...] = ()
    """Of a run with phases: one for each."""
    largest: LargestBatch | None = None
    search: tuple[Estimate, ...] = ()
    """The layouts that were tried; the fastest one that fits comes first."""


def ignore_estimate(purpose: str, estimate: Estimate) -> None:
    """Do nothing: the default `EstimateCallback`."""


def answer(
    config: Config,
    slice_: Slice,
    *,
    largest_batch: bool = False,
    search_limit: int = 0,
    on_estimate: EstimateCallback = ignore_estimate,
) -> Answer:
    """Estimate a step of `config`; on request, find the largest batch and other layouts.

    With `largest_batch`, the largest batch that fits is searched. `search_limit` is the number of
    other layouts that are compiled at the same batch. Raises `UserError` if the mesh or the batch
    of `config` does not fit the devices.
    """
    if config.phases:
        check(
            not largest_batch and not search_limit,
            where="phases",
            found=len(config.phases),
            expected="none, for --largest-batch and --search: the fields of one phase as those of"
            " the run",
        )
        phases = estimate_phases(config, slice_, on_estimate)
        return Answer(phases[0].estimate, phases)
    first = estimate(config, slice_)
    on_estimate("as configured", first)
    largest = None
    if largest_batch:
        largest = find_largest(config, slice_, first, on_estimate)
    layouts: tuple[Estimate, ...] = ()
    if search_limit:
        layouts = find_layouts(config, slice_, first, search_limit, on_estimate)
    return Answer(first, largest=largest, search=layouts)


def estimate_phases(
    config: Config, slice_: Slice, on_estimate: EstimateCallback = ignore_estimate
) -> tuple[PhaseEstimate, ...]:
    """Estimate a step of each phase of a run; phases with the same program are compiled once.

    A batch that grows counts as batches of its first size.
    """
    compiled: dict[tuple[object, ...], Estimate] = {}
    found = []
    for phase in phases_of(config):
        program = _program(phase)
        if program not in compiled:
            compiled[program] = estimate(phase.config, slice_)
            on_estimate(f"phase {phase.number}", compiled[program])
        one, steps = compiled[program], phase.end - phase.begin
        seconds = steps * one.timing.step if one.timing else None
        found.append(PhaseEstimate(phase.number, steps, seconds, one))
    return tuple(found)


def _program(phase: Phase[Config]) -> tuple[object, ...]:
    """Return the part of a phase's configuration that its program's cost depends on.

    The numbers of the optimizer are constants of the program, whose values cost nothing.
    """
    config = phase.config
    train = (config.train.batch_size, config.train.gradient_accumulation_steps)
    return (without_places(config.data), config.model, train)


def find_largest(
    config: Config, slice_: Slice, first: Estimate, on_estimate: EstimateCallback
) -> LargestBatch:
    """Find the largest batch that fits on this mesh; `first` is the estimate of `config` itself."""
    unit = batch_unit(config, slice_)
    # Kept by size: a compile takes up to minutes, so none is done twice.
    estimates = {first.batch_size // unit: first}

    def fits(units: int) -> bool:
        if units not in estimates:
            estimates[units] = estimate(with_batch(config, units * unit), slice_)
            on_estimate("largest batch", estimates[units])
        return estimates[units].fits

    bounds = find_boundary(fits, _guess_units(first, unit), MAX_UNITS)
    refused = None if bounds.refused is None else bounds.refused * unit
    return LargestBatch(bounds.fits * unit, refused, estimates.get(bounds.fits))


def _guess_units(first: Estimate, unit: int) -> int:
    """Guess how many units of rows fit; activations are proportional to the number of rows."""
    units = first.batch_size // unit
    if first.memory is None:
        # The compiler refused it, and then says no memory to calculate with.
        return max(units // 2, 1)
    free = first.memory.available - first.memory.total
    more = int(GUESS_MARGIN * free * units / max(first.memory.activations, 1))
    return max(units + more, 1)


def find_layouts(
    config: Config, slice_: Slice, first: Estimate, limit: int, on_estimate: EstimateCallback
) -> tuple[Estimate, ...]:
    """Estimate the first `limit` candidates at the batch of `config`, the quickest that fits first.

    `first`, the estimate of `config` itself, is among them.
    """
    tried = [first]
    for candidate in itertools.islice(candidates(config, slice_), limit):
        mesh, remat = dataclasses.asdict(candidate.mesh), candidate.model.remat
        # Compiled already.
        if (mesh, remat) == (first.mesh, first.remat):
            continue
        tried.append(estimate(candidate, slice_))
        on_estimate("search", tried[-1])
    return tuple(sorted(tried, key=_step_seconds))


def _step_seconds(estimate: Estimate) -> float:
    # Layouts that do not fit come last.
    return estimate.timing.step if estimate.timing else float("inf")


def to_json(value: Any) -> Any:
    """Return an answer, or a part of it, as plain values; schedules are left out."""
    if dataclasses.is_dataclass(value):
        # An instruction's text and cost for each of thousands: for tests and tools, not for people.
        names = [field.name for field in dataclasses.fields(value) if field.name != "schedule"]
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def write_answer(run_dir: epath.Path, answer: Answer) -> epath.Path:
    """Write `compile.json` into a run folder, which may be new; return its path."""
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / FILE
    content = {"note": NOTE} | to_json(answer)
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())
    return path
