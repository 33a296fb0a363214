"""`bertjax branch RUN --at STEP --run-dir NEW [--phases TEXT ...] [--decay-tokens N]`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertjax.cli.arguments import need, parse_subject, quiet_libraries
from bertjax.errors import check


@dataclass(frozen=True)
class BranchCommand:
    """Make a new run from a kept checkpoint of a run, with other later phases: a decay now, other
    data, another length. Then train it with its own config.json.
    """

    at: int = -1
    """Step of the checkpoint."""
    run_dir: str = ""
    """Folder of the new run."""
    phases: tuple[str, ...] = ()
    """Phases after the step, each a text such as "tokens=50B data.prepared_dir=prepared/code"
    (docs/phases.md).
    """
    decay_tokens: str = ""
    """Length in tokens, such as 50B, of a last phase in which the learning rate falls."""
    decay_steps: str = ""
    """The same in steps."""
    decay_shape: Literal["linear", "cosine", "sqrt"] = "sqrt"
    """Shape of this fall, as the schedules of these names."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject("branch", BranchCommand(), words, "a run folder")
    check(command.at >= 0, where="--at", found="nothing", expected="the step of a checkpoint")
    need(command.run_dir, "branch", "--run-dir with the new folder")
    check(
        not (command.decay_tokens and command.decay_steps),
        where="--decay-tokens",
        found=command.decay_tokens,
        expected="none beside --decay-steps",
    )
    decay = {}
    if command.decay_tokens or command.decay_steps:
        length = {"tokens": command.decay_tokens, "steps": command.decay_steps}
        decay = {name: value for name, value in length.items() if value}
        decay["shape"] = command.decay_shape
    check(
        bool(command.phases or decay),
        where="bertjax branch",
        found="no later phase",
        expected="--phases, --decay-tokens or --decay-steps",
    )
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.api.branch import branch
    from bertjax.report.terminal import terminal_progress

    with terminal_progress() as progress:
        made = branch(
            subject, command.at, command.run_dir, command.phases, decay=decay, progress=progress
        )
    for number, text in enumerate(made.config.phases, 1):
        print(f"phase {number}: {text}")
    print(f"checkpoint: {made.checkpoint}")
    print(f"continue: bertjax train {made.run_dir}/config.json --run-dir {made.run_dir}")
    return 0
