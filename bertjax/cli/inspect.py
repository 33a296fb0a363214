"""`bertjax inspect PATH`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertjax.cli.arguments import parse_subject, quiet_libraries
from bertjax.config import ModelConfig
from bertjax.config.composition import composition
from bertjax.number_text import number_text

if TYPE_CHECKING:
    from etils import epath


@dataclass(frozen=True)
class InspectCommand:
    """Verify prepared shards and describe them, or describe a run."""

    examples: int = 3
    """Number of records to print as text."""
    verify: bool = False
    """Compare all checkpoints of a run with their digests; exit status 2 if one is damaged."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject(
        "inspect", InspectCommand(), words, "a folder of prepared shards, or a run", "PATH"
    )
    quiet_libraries()
    from bertjax.given_files import place_of
    from bertjax.training import checkpoint, run_config

    folder = place_of(subject)
    is_run = (folder / run_config.FILE).exists() or (folder / checkpoint.FOLDER).exists()
    if is_run and command.verify:
        return verify_run(folder)
    if is_run:
        print(describe_run(folder))
    else:
        from bertjax.data.records.summary import summarize

        print(summarize(folder, examples=command.examples))
    return 0


def verify_run(folder: "epath.Path") -> int:
    """Print a line for each checkpoint of a run; return the exit status."""
    from bertjax.training import checkpoint
    from bertjax.training.integrity.verification import verified

    status = 0
    for verdict in verified(folder / checkpoint.FOLDER):
        print(f"{verdict.folder}: {verdict.text}", flush=True)
        if not verdict.is_whole:
            status = 2
    return status


def describe_run(folder: "epath.Path") -> str:
    """Describe a run in a few lines: its model, progress, newest metrics, checkpoints."""
    from bertjax.config.phases.resolution import phases_of
    from bertjax.training import checkpoint, run_config
    from bertjax.training.logs.metrics_log import read_entries

    config = run_config.read_run_config(folder)
    data = config.data
    lines = [
        f"run: {folder}",
        describe_model(config.model),
        f"data: {data.prepared_dir}, length {data.max_seq_length}, batch {config.train.batch_size}",
    ]
    for phase in phases_of(config) if config.phases else ():
        text = config.phases[phase.number - 1]
        lines.append(f"phase {phase.number}: steps {phase.begin:,} to {phase.end:,}: {text}")
    entries = read_entries(folder)
    for split in ("train", "validation"):
        of_split = [entry for entry in entries if entry["split"] == split]
        if of_split:
            newest = of_split[-1]
            figures = [
                f"{k} {number_text(v, '.4g')}" for k, v in newest.items() if isinstance(v, float)
            ]
            progress = f"step {newest['step']:,} of {config.train.steps:,}"
            lines.append(f"{split}: {progress}: {', '.join(figures)}")
    steps = checkpoint.steps_of(folder)
    lines.append(f"checkpoints: {', '.join(map(str, steps)) or 'none'}")
    return "\n".join(lines)


def describe_model(config: ModelConfig) -> str:
    """Describe a model in one line, and in another one the parts that BERT does not have."""
    import math

    import jax

    from bertjax.model import functional

    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(functional.shapes(config)))
    shared = " that share their parameters" if config.share_layers else ""
    parts = [
        f"{config.num_hidden_layers} layers{shared}",
        f"width {config.hidden_size}",
        f"{config.num_attention_heads} heads",
        f"vocabulary {config.vocab_size:,}",
        f"length {config.max_length:,}",
        f"{parameters:,} parameters",
        " ".join(config.heads) or "encoder only",
    ]
    others = composition(config)
    line = f"model: {', '.join(parts)}"
    return f"{line}\nlayers: {', '.join(others)}" if others else line
