"""`bertjax eval RUN [--dotted.field VALUE ...]`"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.config import Config


@dataclass(frozen=True)
class EvalCommand:
    """Evaluate a checkpoint on all held-out instances of its prepared data."""

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "eval", "a run or checkpoint folder")
    if not subject:
        parse("eval RUN", EvalCommand(), rest)
    quiet_libraries()
    from bertjax.parallel import failures, hosts

    with failures.together():
        said = _evaluated(subject, rest)
        if hosts.is_first():
            print("\n".join(said))
    return 0


def _evaluated(subject: str, rest: Sequence[str]) -> list[str]:
    """The checkpoint and its figures, a line each; of several processes all call this."""
    from bertjax.data.tokenizer import load_tokenizer
    from bertjax.parallel.mesh import make_mesh
    from bertjax.train.evaluate import evaluate
    from bertjax.train.feed import prepared_feed
    from bertjax.train.models import load_model
    from bertjax.train.step import check_batch, jit_eval_step

    loaded = load_model(subject, lambda config: parse("eval RUN", EvalCommand(config=config), rest).config)
    config, mesh = loaded.config, make_mesh(loaded.config.mesh)
    check_batch(config, mesh)
    feed = prepared_feed(config, load_tokenizer(loaded.run_dir / "tokenizer"))
    found = evaluate(config, mesh, jit_eval_step(config, mesh), loaded.params, feed.heldout)
    if feed.unigram_entropy is not None:
        found["unigram_entropy"] = feed.unigram_entropy
    figures = {name: f"{value:.4f}" if isinstance(value, float) else f"{value:,}" for name, value in found.items()}
    return [f"checkpoint: {loaded.checkpoint}", *(f"{name}: {value}" for name, value in figures.items())]
