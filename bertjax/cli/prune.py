"""`bertjax prune RUN --to NEW_RUN [--heads 0.3] [--mlp 0.3] [--layers 6] ...`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertjax.cli.arguments import fields_of, parse_subject, quiet_libraries
from bertjax.errors import check


@dataclass(frozen=True)
class PruneCommand:
    """Make a new run from a run's model, without the attention heads, feed-forward units and layers
    that matter least in it. The new model is smaller and dense.
    """

    to: str = ""
    """Folder of the new run."""
    heads: float = 0.0
    """Share of the attention heads that each layer loses: 0 or more, below 1.
    Heads that share keys and values go together.
    """
    mlp: float = 0.0
    """Share of the feed-forward units that each layer loses: 0 or more, below 1."""
    flops: float = 0.0
    """Share of the FLOPs of the layers to prune, in place of --heads and --mlp: how many heads and
    units go is chosen so that the least importance is lost.
    """
    layers: str = ""
    """Layers that stay: a number of them such as 6, or the layers themselves, counted from 0, such
    as 0,2,4; all by default.
    """
    choose_layers: Literal["spread", "first", "loss"] = "spread"
    """Which layers stay, if --layers is a number.
    spread: evenly spaced, from the first on. first: the first ones. loss: those without which the
    loss grows most, each left out alone.
    """
    method: Literal["gradient", "fisher"] = "fisher"
    """Importance of heads and units.
    gradient: the mean size of the loss's gradient with respect to a mask on them (arXiv
    1905.10650). fisher: the mean of its square, then exchanges that make the estimated loss of all
    pruned ones together smaller (arXiv 2204.09656).
    """
    refit: bool = True
    """Solve the last linear layers of the sublayers anew, by least squares on the same data, so
    that they give from the heads and units that stay what they gave from all.
    """
    batches: int = 32
    """Batches of the run's training data, of up to 32 examples each, that importance is measured
    on.
    """
    seed: int = 0
    """Seed that draws these batches."""
    multiple: int = 1
    """The number of units that stay is rounded to a multiple of this; use 128 for a TPU."""
    measure: bool = True
    """Measure both models on held-out data, and write a card. With False the options below, which
    say how, are not used.
    """
    max_loss: str = ""
    """Most that the figure may lose, in percent of its value before, such as 1%; by default any
    loss. With more, nothing is written and the exit status is 3.
    """
    task: str = ""
    """Task whose metric is the figure, if the model was fine-tuned on several tasks."""
    sts: str = ""
    """File of rated pairs (SCORE TAB A TAB B) that a model without a task is measured on."""
    pooling: Literal["mean", "cls"] = "mean"
    """Vector of a sentence, for --sts."""
    runtime: Literal["stablehlo", "onnx"] = "stablehlo"
    """Where both models run to be measured, each in a process of its own."""
    seconds: float = 2.0
    """Seconds that the latency of each model is measured for each shape; 0: it is not."""
    threads: int = 0
    """Threads of each runtime; 0: as many as the process may use CPUs."""
    license: str = ""
    """Licence for the model card; by default the one that the source's README.md names."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject("prune", PruneCommand(), words, "a run or checkpoint folder")
    check(command.to != "", where="--to", found="nothing", expected="a folder for the new run")
    check(
        command.heads or command.mlp or command.flops or command.layers,
        where="bertjax prune",
        found="nothing to do",
        expected="--heads, --mlp or --flops with a share such as 0.3, or --layers",
    )
    check(
        command.choose_layers == "spread" or command.layers,
        where="--choose-layers",
        found=command.choose_layers,
        expected="--layers with a number beside it",
    )
    check(
        command.measure or not command.max_loss,
        where="--max-loss",
        found=command.max_loss,
        expected="--measure True, because a bound is held by measuring",
    )
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.compression.measured_run import RunMeasuring
    from bertjax.compression.prune.prune import PruneOptions, prune_model
    from bertjax.parallel import compile_cache
    from bertjax.report.terminal import terminal_progress

    compile_cache.start()
    options = fields_of(PruneOptions, command)
    measuring = fields_of(RunMeasuring, command) if command.measure else None
    with terminal_progress() as progress:
        pruned = prune_model(subject, command.to, options, measuring, progress=progress)
    print(f"from: {pruned.source}")
    for change in pruned.changes:
        print(change)
    for line in pruned.table:
        print(line)
    print(f"checkpoint: {pruned.checkpoint}")
    return 0
