"""`bertjax evaluate RUN [--dotted.field VALUE ...]`"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bertjax.cli.arguments import (
    log_of_verb,
    need,
    parse,
    quiet_libraries,
    split_subject,
    wants_help,
)
from bertjax.config import Config
from bertjax.number_text import number_text


@dataclass(frozen=True)
class EvaluateCommand:
    """Evaluate a checkpoint on all held-out records of its prepared data, or on the validation sets
    of its tasks.
    """

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "evaluate", "a run or checkpoint folder", rest)
    if not subject:
        # Only with `--help`: it prints and ends the process.
        parse("evaluate RUN", EvaluateCommand(), rest)
    quiet_libraries()
    from bertjax.parallel import compile_cache, failures, hosts

    with failures.end_together(), log_of_verb():
        compile_cache.start()
        from bertjax.api.evaluate import evaluate, saved_config

        # The defaults of the options are the checkpoint's own settings, so that is read first.
        command = parse("evaluate RUN", EvaluateCommand(saved_config(subject)), rest)
        # Without options it is the run's own evaluation, which is written into its folder too.
        result = evaluate(subject, command.config if rest else None)
        if hosts.is_first():
            print(f"checkpoint: {result.checkpoint}")
            for name, value in result.metrics.items():
                spec = ".4f" if isinstance(value, float) else ",d"
                print(f"{name}: {number_text(value, spec)}")
    return 0
