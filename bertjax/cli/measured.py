"""The options of verbs that make a smaller run: how it is measured beside what it was made of."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bertjax.cli.arguments import fields_of
from bertjax.errors import check

if TYPE_CHECKING:
    from bertjax.compression.measured_run import RunMeasuring


@dataclass(frozen=True, kw_only=True)
class MeasuredOptions:
    """Options of a verb that measures two models beside each other."""

    measure: bool = True
    """Measure both models on held-out data, and write a card. With False the options below, which
    say how, are not used.
    """
    max_loss: str = ""
    """Most that the figure may lose, in percent of its value before, such as 1%; by default any
    loss. With more, the exit status is 3.
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

    def check_bound(self) -> None:
        """Raise `UserError` for a bound that nothing would hold."""
        check(
            self.measure or not self.max_loss,
            where="--max-loss",
            found=self.max_loss,
            expected="--measure True, because a bound is held by measuring",
        )

    def measuring(self) -> "RunMeasuring | None":
        """Return what the models are measured on and in; None if they are not."""
        from bertjax.compression.measured_run import RunMeasuring

        return fields_of(RunMeasuring, self) if self.measure else None
