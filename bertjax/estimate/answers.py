"""What `bertjax compile` answers: the estimate of a configuration, its largest batch, other ways to
lay it out.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etils import epath

from bertjax.config import Config
from bertjax.errors import disk_errors
from bertjax.estimate.answer_fields import FILE
from bertjax.estimate.estimate import Estimate, estimate
from bertjax.estimate.hardware.slices import Slice
from bertjax.estimate.search import batch_unit, boundary, candidates, with_batch
from bertjax.storage import write_whole

MOST_ROWS = 2**14  # a device's, beyond which a larger batch is of no use to BERT

Tell = Callable[[str, Estimate], None]
"""Called with what was tried and what came of it."""


@dataclass(frozen=True)
class LargestBatch:
    """The largest batch that fits, found by bisection."""

    batch_size: int
    """Rows over all devices; 0 where not one a device fits."""
    refused: int | None
    """The smallest batch that the compiler refused."""
    estimate: Estimate | None
    """Of the largest."""


@dataclass(frozen=True)
class Answer:
    """All that was asked."""

    estimate: Estimate
    largest: LargestBatch | None = None
    search: tuple[Estimate, ...] = ()
    """What was tried, the quickest that fits first."""


def answer(
    config: Config,
    slice_: Slice,
    *,
    largest_batch: bool = False,
    search_limit: int = 0,
    tell: Tell = lambda *_: None,
) -> Answer:
    """Estimate `config`; look for the largest batch and, in `search_limit` compiles, for a quicker
    layout.
    """
    first = estimate(config, slice_)
    tell("as configured", first)
    largest = find_largest(config, slice_, first, tell) if largest_batch else None
    search = find_layouts(config, slice_, first, search_limit, tell) if search_limit else ()
    return Answer(first, largest, search)


def find_largest(config: Config, slice_: Slice, first: Estimate, tell: Tell) -> LargestBatch:
    """The largest batch that fits on this mesh; `first` is the estimate of `config` itself."""
    unit = batch_unit(config, slice_)
    known = {first.batch_size // unit: first}

    def fits(count: int) -> bool:
        if count not in known:
            known[count] = estimate(with_batch(config, count * unit), slice_)
            tell("largest batch", known[count])
        return known[count].fits

    found = boundary(fits, _guess(first, unit), MOST_ROWS)
    refused = None if found.refused is None else found.refused * unit
    return LargestBatch(found.fits * unit, refused, known.get(found.fits))


def _guess(first: Estimate, unit: int) -> int:
    """Units of rows that may just fit, by what the activations of `first` took."""
    count = first.batch_size // unit
    if first.memory is None:
        return max(count // 2, 1)
    free = first.memory.available - first.memory.total
    return max(count + int(0.9 * free * count / max(first.memory.activations, 1)), 1)


def find_layouts(
    config: Config, slice_: Slice, first: Estimate, limit: int, tell: Tell
) -> tuple[Estimate, ...]:
    """The first `limit` candidates at the batch of `config` and itself, the quickest that fits
    first.
    """
    tried = [first]
    for candidate in itertools.islice(candidates(config, slice_), limit):
        if (dataclasses.asdict(candidate.mesh), candidate.model.remat) == (first.mesh, first.remat):
            continue
        tried.append(estimate(candidate, slice_))
        tell("search", tried[-1])
    return tuple(
        sorted(tried, key=lambda found: found.timing.step if found.timing else float("inf"))
    )


def to_json(found: Any) -> Any:
    """An answer or a part of it as plain values."""
    if dataclasses.is_dataclass(found):
        names = (f.name for f in dataclasses.fields(found) if f.name != "schedule")
        return {name: to_json(getattr(found, name)) for name in names}
    if isinstance(found, dict):
        return {name: to_json(value) for name, value in found.items()}
    return [to_json(value) for value in found] if isinstance(found, list | tuple) else found


def write_answer(run_dir: epath.Path, found: Answer) -> epath.Path:
    """Write `compile.json` into a run folder, which may be new; returns its path."""
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / FILE
    note = "The TPU compiler's estimates; nothing here was measured."
    write_whole(path, (json.dumps({"note": note} | to_json(found), indent=2) + "\n").encode())
    return path
