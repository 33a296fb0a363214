"""The configuration of a branch: the phases of a run up to a step, then others."""

import shlex
from collections.abc import Sequence

from bertjax.config.phases.phase_text import FROM, GROWTH, MASKS, RATE, STEPS, TOKENS
from bertjax.config.phases.resolution import Phase, phase_before, phases_of, planned_steps
from bertjax.config.run import Config
from bertjax.errors import check


def branched(config: Config, step: int, phases: Sequence[str]) -> Config:
    """Return the configuration of a run that is like `config` up to `step`, then has `phases`.

    Each of `phases` is a text as in `Config.phases`, with a length. What the learning rate, the
    mask rate and the growth of the batch were until `step` does not depend on `phases`: their
    lengths, which `config` may leave to the end of the run, are written into the phases before.
    Raises `UserError` for phases that cannot be.
    """
    check(len(phases) > 0, where="phases", found="none", expected="one phase or more")
    check(
        not config.optimizer.restarts,
        where="optimizer.restarts",
        found=config.optimizer.restarts,
        expected="none, in a run that is branched",
    )
    check(
        not config.train.budget,
        where="train.budget",
        found=config.train.budget,
        expected="none, in a run that is branched: its rates follow a clock and not a plan",
    )
    check(
        config.train.batch_size_schedule != "adaptive",
        where="train.batch_size_schedule",
        found="adaptive",
        expected="constant or ramp, in a run that is branched",
    )
    texts = [*_phases_until(config, step), *phases]
    steps = planned_steps(config, texts)
    return config.replace(phases=tuple(texts), train={"steps": steps})


def _phases_until(config: Config, step: int) -> list[str]:
    """Return the texts of the phases before `step`, the last of them cut there."""
    if step == 0:
        return []
    planned = phases_of(config)
    cut = phase_before(planned, step)
    texts = list(config.phases[: cut.number]) if config.phases else [""]
    words = [
        word
        for word in shlex.split(texts[-1])
        if word.partition("=")[0] not in (FROM, STEPS, TOKENS)
    ]
    texts[-1] = shlex.join([f"{STEPS}={step - cut.begin}", *words])
    for begin, fixed in _fixed(planned, cut):
        # A course begins with a phase.
        number = phase_before(planned, begin + 1).number
        texts[number - 1] = _with_words(texts[number - 1], fixed)
    return texts


def _fixed(
    planned: Sequence[Phase[Config]], cut: Phase[Config]
) -> list[tuple[int, dict[str, object]]]:
    """Return the fields that fix the courses of the cut phase, with the step where each begins."""
    optimizer, data, train = cut.config.optimizer, cut.config.data, cut.config.train
    rate: dict[str, object] = {"optimizer.schedule_steps": cut.rate.steps}
    if optimizer.schedule == "wsd":
        rate["optimizer.decay_steps"] = optimizer.decay_steps
    if optimizer.warmup_steps:
        rate["optimizer.warmup_steps"] = optimizer.warmup_steps
    masks: dict[str, object] = {}
    if data.mlm_probability_to:
        masks["data.mlm_probability_steps"] = cut.masks.steps
    growth: dict[str, object] = {}
    if train.batch_size_schedule == "ramp":
        growth["train.batch_size_steps"] = train.batch_size_steps
    courses = {RATE: (cut.rate, rate), MASKS: (cut.masks, masks), GROWTH: (cut.growth, growth)}
    return [(course.begin, fields) for course, fields in courses.values() if fields]


def _with_words(text: str, fields: dict[str, object]) -> str:
    """Return the text of a phase with these fields in place of those that it names."""
    # Of a number of tokens and a number of steps for one thing the steps count now.
    dropped = {name.replace("_steps", "_tokens") for name in fields} | fields.keys()
    words = [word for word in shlex.split(text) if word.partition("=")[0] not in dropped]
    return shlex.join([*words, *(f"{name}={value}" for name, value in fields.items())])
