"""`bertjax evaluate RUN [--dotted.field VALUE ...]` and `bertjax evaluate RUN --text FILE ...`"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

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
from bertjax.errors import check
from bertjax.number_text import number_text


@dataclass(frozen=True)
class EvaluateCommand:
    """Evaluate a checkpoint on all held-out records of its prepared data, or on the validation sets
    of its tasks; or say with how many bits per byte it predicts masked words of any text.
    """

    text: tuple[str, ...] = ()
    """Files of text to predict masked words of, as data.corpus names them; see docs/objectives.md.
    """
    network: Literal["model", "generator"] = "model"
    """With --text: the model, or the generator that predicts masked words in a run with replaced
    tokens.
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
        own = saved_config(subject)
        command = parse("evaluate RUN", EvaluateCommand(config=own), rest)
        if command.text or command.network != "model":
            _evaluate_text(subject, command, own)
            return 0
        # Without options it is the run's own evaluation, which is written into its folder too.
        result = evaluate(subject, command.config if rest else None)
        if hosts.is_first():
            print(f"checkpoint: {result.checkpoint}")
            _print_metrics(result.metrics)
    return 0


def _evaluate_text(subject: str, command: EvaluateCommand, own: Config) -> None:
    """Print what `--text` asks for."""
    check(
        len(command.text) > 0,
        where="--network",
        found=command.network,
        expected="--text with it",
    )
    check(
        # It runs on this machine's devices, and reads no data of the run.
        command.config == own,
        where="--text",
        found="options of the configuration beside it",
        expected="none but --network",
    )
    from bertjax.api.evaluate_text import evaluate_text
    from bertjax.report.terminal import terminal_progress

    with terminal_progress() as progress:
        result = evaluate_text(subject, command.text, network=command.network, progress=progress)
    print(f"checkpoint: {result.checkpoint}")
    _print_metrics(result.metrics)


def _print_metrics(metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        spec = ".4f" if isinstance(value, float) else ",d"
        print(f"{name}: {number_text(value, spec)}")
