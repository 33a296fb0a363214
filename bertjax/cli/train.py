"""`bertjax train CONFIG [--run-dir DIR] [--dotted.field VALUE ...]`"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from bertjax.cli.arguments import parse_configured, quiet_libraries, run_name
from bertjax.config import Config
from bertjax.errors import check

if TYPE_CHECKING:
    from etils import epath

    from bertjax.data.tokenizer import Tokenizer

STOPPED = 75  # the exit status that tells a launch script to start the same command again (sysexits' EX_TEMPFAIL)


@dataclass(frozen=True)
class TrainCommand:
    """Pretrain on prepared shards. The same command continues a run that was stopped or killed."""

    run_dir: str = ""
    """The run's folder: configuration, log, metrics, checkpoints, report; by default runs/NAME of the configuration."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    subject, command = parse_configured("train", TrainCommand, words)
    quiet_libraries()
    from etils import epath

    from bertjax.report.html import write_report
    from bertjax.report.terminal import log_to, terminal_progress
    from bertjax.train.feed import prepared_feed
    from bertjax.train.loop import train

    config = command.config
    run_dir = epath.Path(command.run_dir or f"runs/{run_name(subject)}")
    feed = prepared_feed(config, _take_tokenizer(config, run_dir))
    with log_to(run_dir), terminal_progress() as progress:
        outcome = train(config, run_dir, feed, progress=progress, on_evaluation=lambda: write_report(run_dir))
        report = write_report(run_dir)
        if outcome.stopped:
            logging.getLogger(__name__).warning("stopped by a signal at step %d", outcome.step)
    if outcome.stopped:
        print(f"stopped by a signal at step {outcome.step} of {config.train.steps}, saved; the same command continues")
        return STOPPED
    print(f"checkpoint: {run_dir / 'checkpoints' / str(outcome.step)}")
    print(f"report: {report}")
    return 0


def _take_tokenizer(config: Config, run_dir: "epath.Path") -> "Tokenizer":
    """Copy the prepared data's tokenizer into the run.

    Raises `UserError` when the run, or the one it starts from, has another.
    """
    from bertjax.data.tokenizer import load_tokenizer
    from bertjax.train.feed import corpora

    source = next(iter(corpora(config).values())) / "tokenizer"
    tokenizer = load_tokenizer(source)
    check(
        tokenizer.vocab_size <= config.model.vocab_size,
        "model.vocab_size",
        config.model.vocab_size,
        f"at least the {tokenizer.vocab_size} entries of {source}",
    )
    known = [run_dir / "tokenizer"]
    if config.init_from:
        from bertjax.train.checkpoint import find

        known.append(find(config.init_from)[0] / "tokenizer")
    for folder in known:
        if folder.exists():
            other = load_tokenizer(folder).fingerprint
            check(
                other == tokenizer.fingerprint,
                str(source),
                f"tokenizer {tokenizer.fingerprint[:12]}",
                f"{other[:12]} as in {folder}",
            )
    os.makedirs(run_dir, exist_ok=True)
    tokenizer.save(run_dir / "tokenizer", config.model.max_length)
    return tokenizer
