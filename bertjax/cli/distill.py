"""`bertjax distill CONFIG --teacher RUN [--run-dir DIR] [--finetune.tasks NAME=PLACE ...]`

`bertjax distill --static RUN --to FOLDER` is in `distill_static.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bertjax.cli import distill_static
from bertjax.cli.arguments import (
    parse_configured,
    quiet_libraries,
    run_name,
    run_terminal,
    wants_help,
)
from bertjax.cli.distill_static import is_static
from bertjax.cli.finetune import print_result
from bertjax.cli.measured import MeasuredOptions
from bertjax.cli.train import STOPPED
from bertjax.config import Config
from bertjax.errors import check

OTHER_FORM = distill_static.StaticCommand
"""The options of the form without a configuration, which the shell completes too."""


@dataclass(frozen=True, kw_only=True)
class DistillCommand(MeasuredOptions):
    """Train a smaller model, the student, to compute what a teacher computes. With tasks the text
    is theirs, and the teacher is fine-tuned on them; without tasks it is that of prepared shards.
    The same command continues a run that was stopped or killed. At the end the student is measured
    beside its teacher. A table of word vectors instead: bertjax distill --static RUN --to FOLDER.
    """

    teacher: str = ""
    """Run or checkpoint folder of the teacher."""
    run_dir: str = ""
    """Folder of the student's run; by default runs/NAME with the configuration's NAME."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    if is_static(words):
        return distill_static.run(words)
    # Help needs no other process, so it is printed before they are connected.
    if wants_help(words):
        parse_configured("distill", DistillCommand, words)
    quiet_libraries()

    from bertjax.given_files import place_of
    from bertjax.parallel import compile_cache, failures, hosts

    # The command line is parsed inside this block: a mistake in one process must end all of them.
    with failures.end_together():
        subject, command, overrides = parse_configured("distill", DistillCommand, words)
        config = command.config
        if command.teacher:
            config = config.replace(distill={"teacher": command.teacher})
        check(
            config.distill.teacher,
            where="--teacher",
            found="nothing",
            expected="the run or checkpoint folder of a teacher",
        )
        command.check_bound()
        from bertjax.interop.import_model import is_external

        check(
            not is_external(place_of(config.distill.teacher)),
            where="--teacher",
            found=f"{config.distill.teacher}, a model of another program",
            expected="a run: `bertjax import` makes one of it",
        )
        measuring = command.measuring()
        reason = "--measure False"
        if measuring is not None:
            from bertjax.compression.distilled_run import check_measurable

            reason = check_measurable(config, measuring)
        run_dir = place_of(command.run_dir or f"runs/{run_name(subject)}")
        compile_cache.start(run_dir)
        from bertjax.api.finetune import finetune
        from bertjax.api.pretrain import train

        learn = finetune if config.finetune.tasks else train
        with run_terminal() as progress:
            result = learn(config, run_dir, overrides=overrides, progress=progress)
    if result.stopped:
        if hosts.is_first():
            print(f"stopped by a signal at step {result.step}, saved; the same command continues")
        return STOPPED
    if hosts.is_first():
        print_result(result)
    if measuring is None or reason:
        if hosts.is_first():
            print(f"not measured: {reason}")
        return 0
    from bertjax.compression.distilled_run import student_card

    for line in student_card(result.checkpoint, measuring):
        print(line)
    return 0
