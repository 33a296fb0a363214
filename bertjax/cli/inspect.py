"""`bertjax inspect PATH`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.config import ModelConfig

if TYPE_CHECKING:
    from etils import epath


@dataclass(frozen=True)
class InspectCommand:
    """Verify prepared shards and describe them, or describe a run."""

    examples: int = 3
    """Instances to print as text."""


def run(words: Sequence[str]) -> int:
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "inspect", "a folder of prepared shards, or a run")
    command = parse("inspect PATH", InspectCommand(), rest)
    quiet_libraries()
    from etils import epath

    from bertjax.training import checkpoint, run_config

    folder = epath.Path(subject)
    if (folder / run_config.FILE).exists() or (folder / checkpoint.FOLDER).exists():
        print(describe_run(folder))
    else:
        from bertjax.data.records.summary import summarize

        print(summarize(folder, examples=command.examples))
    return 0


def describe_run(folder: "epath.Path") -> str:
    """A run in a few lines: its model, progress, last figures, checkpoints."""
    from bertjax.training import checkpoint, run_config
    from bertjax.training.logs.metrics_log import read_entries

    config = run_config.read_run_config(folder)
    lines = [
        f"run: {folder}",
        describe_model(config.model),
        f"data: {config.data.prepared_dir}, length {config.data.max_seq_length}, batch {config.train.batch_size}",
    ]
    rows = read_entries(folder)
    for split in ("train", "validation"):
        last = next((row for row in reversed(rows) if row["split"] == split), None)
        if last:
            said = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if isinstance(v, float))
            lines.append(f"{split}: step {last['step']:,} of {config.train.steps:,}: {said}")
    saved = folder / checkpoint.FOLDER
    steps = (
        sorted(int(p.name) for p in saved.iterdir() if p.name.isdigit()) if saved.exists() else []
    )
    lines.append(f"checkpoints: {', '.join(map(str, steps)) or 'none'}")
    return "\n".join(lines)


def describe_model(config: ModelConfig) -> str:
    """A model in a line."""
    import math

    import jax

    from bertjax.model import functional

    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(functional.shapes(config)))
    shared = " that share their parameters" if config.share_layers else ""
    return (
        f"model: {config.num_hidden_layers} layers{shared}, width {config.hidden_size}, "
        f"{config.num_attention_heads} heads, vocabulary {config.vocab_size:,}, length {config.max_length:,}, "
        f"{parameters:,} parameters, {' '.join(config.heads) or 'encoder only'}"
    )
