"""`bertjax prune RUN --to NEW_RUN [--heads 0.3] [--mlp 0.3] [--layers 6] ...`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertjax.cli.arguments import fields_of, parse_subject, quiet_libraries
from bertjax.cli.measured import MeasuredOptions
from bertjax.errors import check


@dataclass(frozen=True, kw_only=True)
class PruneCommand(MeasuredOptions):
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
    by_layer: bool = False
    """Let each layer lose as many heads and units as it can spare: the shares are those of all
    layers together. The result is an ONNX program, because the layers of a run are one stack.
    """


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
    command.check_bound()
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.compression.prune.prune import prune_model
    from bertjax.compression.prune.reduction import PruneOptions
    from bertjax.parallel import compile_cache
    from bertjax.report.terminal import terminal_progress

    compile_cache.start()
    options = fields_of(PruneOptions, command)
    with terminal_progress() as progress:
        pruned = prune_model(subject, command.to, options, command.measuring(), progress=progress)
    print(f"from: {pruned.source}")
    for change in pruned.changes:
        print(change)
    for line in pruned.table:
        print(line)
    print(f"{'program' if command.by_layer else 'checkpoint'}: {pruned.made}")
    return 0
