"""`bertjax train CONFIG [--run-dir DIR] [--dotted.field VALUE ...]`"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from bertjax.cli.arguments import parse_configured, quiet_libraries, run_name, wants_help
from bertjax.config import Config
from bertjax.errors import check

if TYPE_CHECKING:
    from etils import epath

    from bertjax.data.tokenizers.tokenizer import Tokenizer
    from bertjax.training.loop import Outcome

# the exit status that tells a launch script to start the same command again (sysexits' EX_TEMPFAIL)
STOPPED = 75


@dataclass(frozen=True)
class TrainCommand:
    """Pretrain on prepared shards. The same command continues a run that was stopped or killed."""

    run_dir: str = ""
    """The run's folder: configuration, log, metrics, checkpoints, report; by default runs/NAME of
    the configuration.
    """
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    if wants_help(words):
        parse_configured("train", TrainCommand, words)
    quiet_libraries()
    from etils import epath

    from bertjax.parallel import compile_cache, failures, hosts

    with failures.end_together():
        subject, command = parse_configured("train", TrainCommand, words)
        run_dir = epath.Path(command.run_dir or f"runs/{run_name(subject)}")
        compile_cache.start(run_dir)
        outcome = (_run_first if hosts.is_first() else _run_other)(command.config, run_dir)
    return STOPPED if outcome.stopped else 0


def _run_first(config: Config, run_dir: "epath.Path") -> "Outcome":
    """Train, and write and say what a run does."""
    from bertjax.report.html import write_report
    from bertjax.report.terminal import log_to, terminal_progress
    from bertjax.training.batch_source import prepared_source
    from bertjax.training.loop import train

    source = prepared_source(config, _take_tokenizer(config, run_dir))
    with log_to(run_dir), terminal_progress() as progress:
        outcome = train(
            config, run_dir, source, progress=progress, on_evaluation=lambda: write_report(run_dir)
        )
        report = write_report(run_dir)
        if outcome.stopped:
            logging.getLogger(__name__).warning("stopped by a signal at step %d", outcome.step)
    if outcome.stopped:
        print(
            f"stopped by a signal at step {outcome.step} of {config.train.steps}, saved; the same command continues"
        )
    else:
        print(f"checkpoint: {run_dir / 'checkpoints' / str(outcome.step)}")
        print(f"report: {report}")
    return outcome


def _run_other(config: Config, run_dir: "epath.Path") -> "Outcome":
    """Train as one of a run's processes that is not its first: silent, but for warnings."""
    from bertjax.data.tokenizers.tokenizer import load_tokenizer
    from bertjax.parallel import hosts
    from bertjax.report.terminal import warnings_of
    from bertjax.training.batch_source import prepared_source
    from bertjax.training.loop import train

    with warnings_of(hosts.process_name()):
        return train(
            config, run_dir, prepared_source(config, load_tokenizer(_prepared_tokenizer(config)))
        )


def _prepared_tokenizer(config: Config) -> "epath.Path":
    from bertjax.training.batch_source import corpora

    return next(iter(corpora(config).values())) / "tokenizer"


def _take_tokenizer(config: Config, run_dir: "epath.Path") -> "Tokenizer":
    """Copy the prepared data's tokenizer into the run.

    Raises `UserError` when the run, or the one it starts from, has another.
    """
    from bertjax.data.tokenizers.tokenizer import load_tokenizer

    source = _prepared_tokenizer(config)
    tokenizer = load_tokenizer(source)
    check(
        tokenizer.vocab_size <= config.model.vocab_size,
        where="model.vocab_size",
        found=config.model.vocab_size,
        expected=f"at least the {tokenizer.vocab_size} entries of {source}",
    )
    known = [run_dir / "tokenizer"]
    if config.init_from:
        from bertjax.training.checkpoint import find_checkpoint

        known.append(find_checkpoint(config.init_from)[0] / "tokenizer")
    for folder in known:
        if folder.exists():
            other = load_tokenizer(folder).fingerprint
            check(
                other == tokenizer.fingerprint,
                where=str(source),
                found=f"tokenizer {tokenizer.fingerprint[:12]}",
                expected=f"{other[:12]} as in {folder}",
            )
    run_dir.mkdir(parents=True, exist_ok=True)
    tokenizer.save(run_dir / "tokenizer", config.model.max_length)
    return tokenizer
