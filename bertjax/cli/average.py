"""`bertjax average RUN --to NEW_RUN [--last K | --steps STEP ... | --ema]`"""

from collections.abc import Sequence
from dataclasses import dataclass

from bertjax.cli.arguments import need, parse_subject, quiet_libraries
from bertjax.errors import check


@dataclass(frozen=True)
class AverageCommand:
    """Make a new run whose parameters are the mean of checkpoints of a run: of all that are there,
    the last ones, or those of some steps; or the moving average of its weights.
    """

    to: str = ""
    """Folder of the new run."""
    last: int = 0
    """Number of the newest checkpoints to average; 0: all."""
    steps: tuple[int, ...] = ()
    """Steps of the checkpoints to average, in place of --last."""
    ema: bool = False
    """Take the moving average that a run with train.ema_decay keeps: in its newest checkpoint, or
    in the one that --steps names.
    """


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject("average", AverageCommand(), words, "a run folder")
    need(command.to, "average", "--to with the new folder")
    check(command.last >= 0, where="--last", found=command.last, expected="1 or more, or 0 for all")
    check(
        not (command.last and command.steps),
        where="--last",
        found=command.last,
        expected="none beside --steps",
    )
    check(
        not (command.ema and command.last),
        where="--last",
        found=command.last,
        expected="none beside --ema",
    )
    check(
        not command.ema or len(command.steps) < 2,
        where="--steps",
        found=" ".join(map(str, command.steps)),
        expected="one step at most, beside --ema",
    )
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.api.average import average
    from bertjax.report.terminal import terminal_progress

    with terminal_progress() as progress:
        made = average(
            subject,
            command.to,
            last=command.last,
            steps=command.steps,
            ema=command.ema,
            progress=progress,
        )
    name = "moving average at step" if command.ema else "mean of steps"
    print(f"{name}: {', '.join(map(str, made.steps))}")
    print(f"checkpoint: {made.checkpoint}")
    return 0
