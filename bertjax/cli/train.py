"""`bertjax train CONFIG [--run-dir DIR] [--dotted.field VALUE ...]`"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bertjax.cli.arguments import (
    parse_configured,
    quiet_libraries,
    run_name,
    run_terminal,
    wants_help,
)
from bertjax.config import Config

# Exit status (EX_TEMPFAIL in sysexits.h) that tells a launch script to start the same command
# again.
STOPPED = 75


@dataclass(frozen=True)
class TrainCommand:
    """Pretrain on prepared shards. The same command continues a run that was stopped or killed."""

    run_dir: str = ""
    """Folder for configuration, log, metrics, checkpoints and report; by default runs/NAME with the
    configuration's NAME, such as runs/modernbert_base for modernbert/base.
    """
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    # Help needs no other process, so it is printed before they are connected.
    if wants_help(words):
        parse_configured("train", TrainCommand, words)
    quiet_libraries()

    from bertjax.given_files import place_of
    from bertjax.parallel import compile_cache, failures, hosts

    # The command line is parsed inside this block: a mistake in one process must end all of them.
    with failures.end_together():
        subject, command, overrides = parse_configured("train", TrainCommand, words)
        run_dir = place_of(command.run_dir or f"runs/{run_name(subject)}")
        compile_cache.start(run_dir)
        from bertjax.api.pretrain import train

        with run_terminal() as progress:
            result = train(command.config, run_dir, overrides=overrides, progress=progress)
    if result.stopped:
        if hosts.is_first():
            print(
                f"stopped by a signal at step {result.step} of {command.config.train.steps}, saved;"
                " the same command continues"
            )
        return STOPPED
    if hosts.is_first():
        print(f"checkpoint: {result.checkpoint}")
        print(f"report: {result.report}")
    return 0
