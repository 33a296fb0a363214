"""`bertjax evaluate RUN [--dotted.field VALUE ...]`"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.config import Config


@dataclass(frozen=True)
class EvaluateCommand:
    """Evaluate a checkpoint on all held-out instances of its prepared data, or on the validation
    sets of its tasks.
    """

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "evaluate", "a run or checkpoint folder")
    if not subject:
        parse("evaluate RUN", EvaluateCommand(), rest)
    quiet_libraries()
    from bertjax.parallel import compile_cache, failures, hosts

    with failures.end_together():
        compile_cache.start()
        said = _evaluated(subject, rest)
        if hosts.is_first():
            print("\n".join(said))
    return 0


def _evaluated(subject: str, rest: Sequence[str]) -> list[str]:
    """The checkpoint and its figures, a line each; of several processes all call this."""
    from bertjax.training.checkpoint import find_checkpoint, read_checkpoint_config

    def adjust(config: Config) -> Config:
        return parse("evaluate RUN", EvaluateCommand(config=config), rest).config

    tasks = read_checkpoint_config(find_checkpoint(subject)[1]).finetune.tasks
    return _on_tasks(subject, adjust, rest) if tasks else _on_heldout(subject, adjust)


def _on_heldout(subject: str, adjust: Callable[[Config], Config]) -> list[str]:
    from bertjax.data.tokenizers.tokenizer import load_tokenizer
    from bertjax.parallel.mesh import make_mesh
    from bertjax.training.batch_source import prepared_source
    from bertjax.training.saved_model import load_model
    from bertjax.training.step import check_batch

    loaded = load_model(subject, adjust)
    config, mesh = loaded.config, make_mesh(loaded.config.mesh)
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, eval_max_batches=0)
    )
    check_batch(config, mesh)
    source = prepared_source(config, load_tokenizer(loaded.run_dir / "tokenizer"))
    assert source.make_evaluator is not None
    found = source.make_evaluator(config, mesh)(loaded.params)
    figures = {
        name: f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
        for name, value in found.items()
    }
    return [
        f"checkpoint: {loaded.checkpoint}",
        *(f"{name}: {value}" for name, value in figures.items()),
    ]


def _on_tasks(
    subject: str, adjust: Callable[[Config], Config], options: Sequence[str]
) -> list[str]:
    from bertjax.data.tokenizers.tokenizer import load_tokenizer
    from bertjax.finetuning.error_analysis import write_evaluation
    from bertjax.finetuning.evaluate_checkpoint import assess, described_lines, validation_sets
    from bertjax.finetuning.load import load_finetuned
    from bertjax.parallel import hosts
    from bertjax.report.html import write_report
    from bertjax.training.checkpoint import find_checkpoint

    loaded = load_finetuned(subject, adjust)
    tokenizer = load_tokenizer(loaded.run_dir / "tokenizer")
    found, figures = assess(loaded, validation_sets(loaded, tokenizer), tokenizer)
    # Of another checkpoint, or of other files, it is not what the run's report is about.
    if hosts.is_first() and not options and find_checkpoint(loaded.run_dir)[1] == loaded.checkpoint:
        write_evaluation(loaded.run_dir, int(loaded.checkpoint.name), found, figures)
        write_report(loaded.run_dir)
    return described_lines(loaded, figures)
