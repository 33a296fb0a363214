"""The folders that the phases of a run read: what is prepared for each."""

import os
from typing import Protocol, TypeVar

from bertjax.config.data import TokenizerConfig
from bertjax.config.phases.resolution import Run, phases_of
from bertjax.errors import check

TOKENIZER = "tokenizer"
"""Name of the folder in a prepared one that holds its tokenizer."""


class PreparedRun(Run, Protocol):
    """What is read here of the configuration of a run, `Config`."""

    @property
    def tokenizer(self) -> TokenizerConfig: ...


C = TypeVar("C", bound=PreparedRun)


def configs_to_prepare(config: C, phase: int = 0) -> tuple[C, ...]:
    """Return a configuration without phases for each folder that a run reads, in their order.

    Two phases that read one folder have it prepared as the first of them says. The folders of a
    mixture are each prepared by a command of their own. All folders after the first one take its
    tokenizer, if `tokenizer.vocab_file` names no other. With `phase`, counted from 1, it is the
    configuration of that phase alone; `UserError` where there is no such phase.

    >>> from bertjax.config import Config
    >>> config = Config().replace(
    ...     train={"steps": 9},
    ...     optimizer={"warmup_steps": 0},
    ...     phases=("steps=5", "data.prepared_dir=long"),
    ... )
    >>> [(each.data.prepared_dir, each.tokenizer.vocab_file) for each in configs_to_prepare(config)]
    [('prepared', ''), ('long', 'prepared/tokenizer')]
    """
    phases = phases_of(config)
    check(
        0 <= phase <= len(phases),
        where="--phase",
        found=phase,
        expected=f"0 (all) to {len(phases)}",
    )
    first = phases[0].config
    if phase:
        return (_with_tokenizer(phases[phase - 1].config, first),)
    found = {first.data.prepared_dir: first}
    for each in phases:
        if not each.config.data.mixture:
            found.setdefault(each.config.data.prepared_dir, each.config)
    return tuple(_with_tokenizer(each, first) for each in found.values())


def _with_tokenizer(config: C, first: C) -> C:
    """Return `config` with the tokenizer of the folder of `first`, unless it has a vocabulary."""
    folder = first.data.prepared_dir
    if config.tokenizer.vocab_file or config.data.prepared_dir == folder:
        return config
    return config.replace(tokenizer={"vocab_file": os.path.join(folder, TOKENIZER)})
