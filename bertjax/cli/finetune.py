"""`bertjax finetune CONFIG --init-from MODEL --finetune.tasks NAME=PLACE ... [--grid paper]
[--seeds N ...]`
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from bertjax.cli.arguments import parse_configured, quiet_libraries, run_name, wants_help
from bertjax.cli.train import STOPPED
from bertjax.config import Config, Head
from bertjax.errors import UserError, check

if TYPE_CHECKING:
    from etils import epath

    from bertjax.data.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class FinetuneCommand:
    """Fine-tune a model on tasks: once, or as a sweep of settings and seeds. The same command
    continues either.
    """

    run_dir: str = ""
    """The run's folder, or the sweep's; by default runs/NAME of the configuration."""
    grid: Literal["none", "paper"] = "none"
    """paper: all settings of the BERT paper (batch size 16 and 32; learning rate 5e-5, 3e-5, 2e-5;
    2 to 4 epochs).
    """
    seeds: tuple[int, ...] = ()
    """A sweep with each of these seeds."""
    batch_sizes: tuple[int, ...] = ()
    """A sweep over these batch sizes, in place of the grid's or the configuration's one."""
    learning_rates: tuple[float, ...] = ()
    """The same for the peak learning rate."""
    epochs: tuple[float, ...] = ()
    """The same for the epochs."""
    keep: Literal["best", "all"] = "best"
    """Models of a sweep that are kept: the one with the best score, or all."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    if wants_help(words):
        parse_configured("finetune", FinetuneCommand, words)
    quiet_libraries()
    from etils import epath

    from bertjax.parallel import compile_cache, failures, hosts

    with failures.end_together():
        subject, command = parse_configured(
            "finetune",
            FinetuneCommand,
            words,
            lambda made: _init_run(made, _folder(made, words[0])),
        )
        check(
            command.config.finetune.tasks,
            where="--finetune.tasks",
            found="none",
            expected="one or more, as rte=data/RTE",
        )
        folder = _folder(command, subject)
        compile_cache.start(epath.Path(folder))
        config = dataclasses.replace(command.config, init_from=_init_run(command, folder))
        tokenizer = _take_tokenizer(config, epath.Path(folder))
        swept = (command.seeds, command.batch_sizes, command.learning_rates, command.epochs)
        if command.grid == "none" and not any(swept):
            return _run(config, epath.Path(folder), tokenizer)
        check(
            not hosts.is_multiprocess(),
            where="--seeds and --grid",
            found="several processes",
            expected="one, for a sweep",
        )
        return _sweep(command, config, epath.Path(folder), tokenizer)


def _folder(command: FinetuneCommand, subject: str) -> str:
    return command.run_dir or f"runs/{run_name(subject)}"


def _init_run(command: FinetuneCommand, folder: str) -> str:
    """The run to start from: `init_from`, or what is imported of another program's model into
    `folder/init`.
    """
    from etils import epath

    from bertjax.interop.import_model import import_model
    from bertjax.parallel import hosts
    from bertjax.training.checkpoint import FOLDER, find_checkpoint, read_meta

    source = epath.Path(command.config.init_from or ".")
    foreign = any(
        (source / name).exists()
        for name in ("model.safetensors", "pytorch_model.bin", "bert_config.json")
    )
    if not command.config.init_from or (source / FOLDER).exists() or not foreign:
        return command.config.init_from
    check(
        not hosts.is_multiprocess(),
        where="--init-from",
        found=source,
        expected="a run, for several processes (`bertjax import` makes one)",
    )
    made = epath.Path(folder) / "init"
    if (made / FOLDER).exists():
        before = read_meta(find_checkpoint(made)[1]).get("imported", {}).get("source")
        check(
            before == str(source),
            where=str(made),
            found=f"the model of {before}",
            expected=f"that of {source} (another --run-dir)",
        )
        return str(made)
    # Under another name until it is whole.
    part = made.with_name("init.part")
    if part.exists():
        part.rmtree()
    imported = import_model(source, part)
    if imported.tokenizer is None:
        part.rmtree()
        raise UserError(
            f"{source}: found no vocabulary, expected vocab.txt or another tokenizer's files"
        )
    part.rename(made)
    return str(made)


def _take_tokenizer(config: Config, run_dir: "epath.Path") -> "Tokenizer":
    """The tokenizer of the model to start from, or of the configuration, copied into the run."""
    from bertjax.data.tokenizers.tokenizer import load_tokenizer, open_vocabulary
    from bertjax.parallel import hosts
    from bertjax.training.checkpoint import find_checkpoint

    if config.init_from:
        tokenizer = load_tokenizer(find_checkpoint(config.init_from)[0] / "tokenizer")
    else:
        check(
            config.tokenizer.vocab_file,
            where="tokenizer.vocab_file",
            found="none",
            expected="a vocabulary, or a model by --init-from",
        )
        tokenizer = open_vocabulary(config.tokenizer)
    if config.finetune.decoder_from:
        other = load_tokenizer(
            find_checkpoint(config.finetune.decoder_from)[0] / "tokenizer"
        ).fingerprint
        same = other == tokenizer.fingerprint
        check(
            same,
            where=config.finetune.decoder_from,
            found=f"tokenizer {other[:12]}",
            expected=f"{tokenizer.fingerprint[:12]}, the encoder's",
        )
    rows = config.model.vocab_size
    check(
        tokenizer.vocab_size <= rows,
        where="model.vocab_size",
        found=rows,
        expected=f"at least the tokenizer's {tokenizer.vocab_size}",
    )
    kept = run_dir / "tokenizer"
    if kept.exists():
        other = load_tokenizer(kept).fingerprint
        check(
            other == tokenizer.fingerprint,
            where=str(kept),
            found=f"tokenizer {other[:12]}",
            expected=f"{tokenizer.fingerprint[:12]}, the model's",
        )
    elif hosts.is_first():
        run_dir.mkdir(parents=True, exist_ok=True)
        tokenizer.save(run_dir / "tokenizer", config.model.max_length)
    return tokenizer


def _heads(config: Config) -> tuple[Head, ...]:
    """The heads of the model to start from."""
    from bertjax.training.checkpoint import find_checkpoint, read_checkpoint_config

    return (
        read_checkpoint_config(find_checkpoint(config.init_from)[1]).model.heads
        if config.init_from
        else ()
    )


def _run(config: Config, run_dir: "epath.Path", tokenizer: "Tokenizer") -> int:
    """Fine-tune once; of several processes all call this, and the first one says what comes of it."""
    from bertjax.finetuning import finetune
    from bertjax.parallel import hosts
    from bertjax.report.html import write_report
    from bertjax.report.terminal import log_to, terminal_progress, warnings_of

    first = hosts.is_first()
    with (
        log_to(run_dir) if first else warnings_of(hosts.process_name()),
        terminal_progress() as progress,
    ):
        prepared = finetune.prepare(config, tokenizer)
        config = finetune.resolve(config, prepared, _heads(config))
        report = (lambda: write_report(run_dir)) if first else (lambda: None)
        outcome = finetune.finetune(
            config, run_dir, prepared, tokenizer, progress=progress, on_evaluation=report
        )
        if outcome.stopped:
            logging.getLogger(__name__).warning("stopped by a signal at step %d", outcome.step)
            if first:
                print(
                    f"stopped by a signal at step {outcome.step}, saved; the same command continues"
                )
            return STOPPED
        if first:
            finetune.write_result(config, run_dir, outcome.step, prepared)
        said = _evaluated(run_dir, tokenizer)
        if first:
            print("\n".join(said))
            print(f"report: {write_report(run_dir)}")
    return 0


def _evaluated(run_dir: "epath.Path", tokenizer: "Tokenizer") -> list[str]:
    """The figures of the checkpoint that counts, a line each; the first process writes
    `evaluation.json`.
    """
    from bertjax.finetuning.error_analysis import write_evaluation
    from bertjax.finetuning.evaluate_checkpoint import assess, described_lines, validation_sets
    from bertjax.finetuning.finetune import choose_thresholds
    from bertjax.finetuning.load import load_finetuned
    from bertjax.parallel import hosts
    from bertjax.training.checkpoint import find_checkpoint

    # The first process has written which one counts; the others may not see that yet.
    counts = hosts.from_first(str(find_checkpoint(run_dir)[1]) if hosts.is_first() else "")
    loaded = load_finetuned(counts, lambda config: config)
    splits = validation_sets(loaded, tokenizer)
    found, figures = assess(loaded, splits, tokenizer)
    chosen = hosts.from_first(str(hosts.is_first() and choose_thresholds(run_dir, found)))
    if chosen == "True":
        loaded = load_finetuned(counts, lambda config: config)
        found, figures = assess(loaded, splits, tokenizer)
    if hosts.is_first():
        write_evaluation(run_dir, int(loaded.checkpoint.name), found, figures)
    return described_lines(loaded, figures)


def _sweep(
    command: FinetuneCommand, config: Config, run_dir: "epath.Path", tokenizer: "Tokenizer"
) -> int:
    from bertjax.finetuning.sweep import sweep
    from bertjax.finetuning.sweep_grid import PAPER_GRID, Grid
    from bertjax.report.html import write_report
    from bertjax.report.terminal import log_to, terminal_progress

    paper = command.grid == "paper"
    grid = Grid(
        batch_sizes=command.batch_sizes
        or (PAPER_GRID.batch_sizes if paper else (config.train.batch_size,)),
        learning_rates=command.learning_rates
        or (PAPER_GRID.learning_rates if paper else (config.optimizer.peak_learning_rate,)),
        epochs=command.epochs or (PAPER_GRID.epochs if paper else (config.finetune.epochs,)),
        seeds=command.seeds or (config.seed,),
    )
    with log_to(run_dir), terminal_progress() as progress:
        found = sweep(
            config,
            grid,
            run_dir,
            tokenizer,
            _heads(config),
            keep_all=command.keep == "all",
            progress=progress,
            tell=lambda line: print(line, flush=True),
        )
        if found.stopped:
            print(
                f"stopped by a signal after {len(found.results)} runs; the same command continues"
            )
            return STOPPED
        print(found.table)
        print(f"best run: {found.best}")
        if found.best:
            print("\n".join(_evaluated(found.best, tokenizer)))
            print(f"report: {write_report(found.best)}")
    return 0
