"""The phases of a run: spans of steps, each with the configuration that holds there."""

import dataclasses
import typing
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from bertjax.config.data import DataConfig
from bertjax.config.phases.phase_text import (
    FIELDS,
    FROM,
    GROWTH,
    MASKS,
    RATE,
    RESETS,
    STEPS,
    TOKENS,
    count_of,
    parse_phase,
)
from bertjax.config.phases.spans import Span, optimizer_in_steps, tokens_of, train_in_steps
from bertjax.config.training import OptimizerConfig, TrainConfig
from bertjax.errors import UserError, check

LONGEST = 2**31 - 1
"""The largest number of steps that a run may have."""


class Run(Protocol):
    """What is read here of the configuration of a run, `Config`."""

    @property
    def phases(self) -> tuple[str, ...]: ...
    @property
    def data(self) -> DataConfig: ...
    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def train(self) -> TrainConfig: ...
    def replace(self, **changes: object) -> Self: ...


C = TypeVar("C", bound=Run)


class Course(NamedTuple):
    """Steps of a run in which the learning rate, say, follows one rule."""

    begin: int
    """The step at which it begins."""
    steps: int


@dataclasses.dataclass(frozen=True)
class Phase(Generic[C]):
    """A span of a run, with the configuration that holds there."""

    number: int
    """Counted from 1."""
    begin: int
    """The step before its first update."""
    end: int
    """The step after its last update."""
    config: C
    """The configuration without phases; its numbers of tokens are numbers of steps."""
    changed: tuple[str, ...]
    """Dotted names of the fields that the phase names."""
    rate: Course
    masks: Course
    growth: Course


class _Draft(NamedTuple):
    """A phase before the lengths of its courses are known."""

    begin: int
    end: int
    config: Any
    changed: tuple[str, ...]


def phases_of(config: C) -> tuple[Phase[C], ...]:
    """Return the phases of a run in their order; one, with the whole run, where none is named.

    Each phase begins with the values that the phase before it had. A new course of the learning
    rate has a warmup only if its phase names one. Raises `UserError`, which names the phase, for
    whatever is wrong in one.
    """
    # Few runs are looked at in one process, and each of them often.
    return typing.cast(tuple[Phase[C], ...], _phases_of(typing.cast(Hashable, config)))


@lru_cache(maxsize=64)
def _phases_of(hashable: Hashable) -> tuple[Phase[Run], ...]:
    config = typing.cast(Run, hashable)
    drafts = list(_drafts(config))
    named = bool(config.phases)
    return tuple(_phase(drafts, index, named=named) for index in range(len(drafts)))


def _drafts(config: Run) -> Iterator[_Draft]:
    """Yield the phases, and raise `UserError` where they do not fill the run."""
    steps = config.train.steps
    if not config.phases:
        yield _Draft(0, steps, config, ())
        return
    end = 0
    for draft in _named_drafts(config, config.phases, steps):
        yield draft
        end = draft.end
    check(
        end == steps,
        where="train.steps",
        found=steps,
        expected=f"{end}, where the last of phases ends",
    )


def planned_steps(config: Run, phases: Sequence[str]) -> int:
    """Return the number of steps of these phases, each with a length, of a run like `config`.

    Raises `UserError` as `phases_of` does.
    """
    drafts = _named_drafts(config, phases, 0)
    return max(draft.end for draft in drafts)


def _named_drafts(config: Run, phases: Sequence[str], steps: int) -> Iterator[_Draft]:
    """Yield the phases of a run of so many steps; `config` has the values before the first one."""
    # Until it is known how long a schedule is, none is too long.
    current, begin = config.replace(phases=(), train={"steps": LONGEST}), 0
    for number, text in enumerate(phases, 1):
        with _errors_of_phase(number):
            span, changes = parse_phase(text)
            current = _changed(current, changes, is_first=number == 1)
            # What it has measured is a state, which a phase of another batch could not go on with.
            growth = current.train.batch_size_schedule
            check(
                growth != "adaptive",
                where="train.batch_size_schedule",
                found=growth,
                expected="constant or ramp, in a run with phases",
            )
            _check_begin(span, begin)
            is_last = number == len(phases)
            end = begin + _length(span, current, steps - begin, is_last=is_last)
        yield _Draft(begin, end, current, tuple(changes))
        begin = end


@contextmanager
def _errors_of_phase(number: int) -> Iterator[None]:
    """Name the phase in a `UserError` of the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"phase {number}: {error}") from error


def _changed(config: Run, changes: dict[str, Any], *, is_first: bool) -> Run:
    """Return the configuration of a phase: that of the phase before it, with its changes."""
    check(
        not {"data.prepared_dir", "data.mixture"} <= changes.keys(),
        where="phases",
        found="data.prepared_dir and data.mixture",
        expected="one of them",
    )
    # In the first phase nothing has begun yet that could begin anew.
    courses = set() if is_first else {FIELDS[name] for name in changes}
    values: dict[str, Any] = {}
    for cause, reset in RESETS.items():
        if cause in courses or cause in changes:
            values |= reset
    sections: dict[str, dict[str, Any]] = {}
    for name, value in (values | changes).items():
        section, _, field = name.partition(".")
        sections.setdefault(section, {})[field] = value
    return config.replace(**sections)


def _check_begin(span: dict[str, str], begin: int) -> None:
    if FROM not in span:
        return
    given = count_of(span[FROM], FROM)
    what = "an overlap" if given < begin else "a gap"
    check(
        given == begin,
        where=FROM,
        found=f"{given}, {what}",
        expected=f"{begin}, where the phase before it ends",
    )


def _length(span: dict[str, str], config: Run, left: int, *, is_last: bool) -> int:
    """Return the number of steps of a phase; `left` is the number that the run has left."""
    named = [name for name in (STEPS, TOKENS) if name in span]
    check(
        len(named) == 1 or (is_last and not named),
        where="phases",
        found=" and ".join(named) or "no length",
        expected="steps=N or tokens=N (the last phase may have none: the rest of train.steps)",
    )
    if not named:
        check(left > 0, where="train.steps", found=f"{left} steps left", expected="1 or more")
        return left
    (name,) = named
    count = count_of(span[name], name)
    check(count > 0, where=name, found=count, expected="a number above 0")
    if name == TOKENS:
        return -(-count // tokens_per_step(config))
    return count


def _phase(drafts: Sequence[_Draft], index: int, *, named: bool) -> Phase[Run]:
    """Return a phase with its courses, which may begin before it and end after it.

    Without `named` it is a run that has no phases.
    """
    draft = drafts[index]
    courses, spans = {}, {}
    for course in (RATE, MASKS, GROWTH):
        members = _members(drafts, index, course)
        begin, end = members[0].begin, members[-1].end
        courses[course] = Course(begin, end - begin)
        spans[course] = [_span(each) for each in members]
    config = draft.config
    with _errors_of_phase(index + 1) if named else nullcontext():
        optimizer = optimizer_in_steps(config.optimizer, spans[RATE])
        train = train_in_steps(config.train, spans[GROWTH])
        rate = courses[RATE]
        rate = rate._replace(steps=optimizer.schedule_steps or rate.steps)
        _check_rate(optimizer, rate)
    if named:
        optimizer = dataclasses.replace(optimizer, schedule_steps=rate.steps)
        train = dataclasses.replace(train, steps=drafts[-1].end)
    # Only then: a new configuration asks for its phases, too.
    if optimizer is not config.optimizer or train is not config.train:
        config = config.replace(optimizer=optimizer, train=train)
    masks = courses[MASKS]
    return Phase(
        number=index + 1,
        begin=draft.begin,
        end=draft.end,
        config=config,
        changed=draft.changed,
        rate=rate,
        masks=masks._replace(steps=config.data.mlm_probability_steps or masks.steps),
        growth=courses[GROWTH],
    )


def _members(drafts: Sequence[_Draft], index: int, course: str) -> Sequence[_Draft]:
    """Return the phases that share a course with the phase `index`."""

    def begins(draft: _Draft) -> bool:
        return course in {FIELDS[name] for name in draft.changed}

    first = index
    while first > 0 and not begins(drafts[first]):
        first -= 1
    after = index + 1
    while after < len(drafts) and not begins(drafts[after]):
        after += 1
    return drafts[first:after]


def _span(draft: _Draft) -> Span:
    return Span(draft.end - draft.begin, tokens_per_step(draft.config))


def tokens_per_step(config: Run) -> int:
    """Return the number of tokens of a batch, padding included: rows times their length."""
    return config.train.batch_size * config.data.max_seq_length


def _check_rate(optimizer: OptimizerConfig, rate: Course) -> None:
    """Raise `UserError` where warmup and decay do not fit into the steps of their schedule."""
    decay = optimizer.decay_steps if optimizer.schedule == "wsd" else 0
    name = "optimizer.decay_steps" if decay else "optimizer.warmup_steps"
    most, what = rate.steps, "the steps of the schedule"
    if decay:
        most, what = max(rate.steps - optimizer.warmup_steps, 0), f"{what} after its warmup"
    check(
        optimizer.warmup_steps + decay <= rate.steps,
        where=name,
        found=decay or optimizer.warmup_steps,
        expected=f"at most {most}, {what}",
    )


def phase_before(phases: Sequence[Phase[C]], step: int) -> Phase[C]:
    """Return the phase of the update that led to `step`; the first one at step 0."""
    return next(phase for phase in phases if step <= phase.end)


def tokens_at(phases: Sequence[Phase[C]], step: int) -> int:
    """Return the number of tokens of the first `step` steps, padding included."""
    spans = [Span(phase.end - phase.begin, tokens_per_step(phase.config)) for phase in phases]
    return tokens_of(step, spans)
