"""What a compressed model is measured on, and what it may lose."""

from dataclasses import dataclass

from bertjax.compression.figures import Pooling, Predict
from bertjax.compression.runtimes.process import RuntimeModel, available_threads
from bertjax.errors import check


@dataclass(frozen=True)
class Measuring:
    """What a compressed model is measured on, and what it may lose."""

    max_loss: str = "0.5%"
    """Most that the figure may lose, in percent of its value before."""
    task: str = ""
    """Task whose head is exported, if the model was fine-tuned on several tasks."""
    sts: str = ""
    """File of rated pairs that a model without a task is measured on."""
    pooling: Pooling = "mean"
    """Vector of a sentence, with `sts`."""
    seconds: float = 2.0
    """Seconds that the latency of a model is measured for each shape; 0: it is not."""
    threads: int = 0
    """Threads of each runtime; 0: as many as this process may use CPUs."""

    def __post_init__(self) -> None:
        check(
            0 <= self.seconds <= 3600,
            where="--seconds",
            found=self.seconds,
            expected="0 to 3600",
        )
        check(
            0 <= self.threads <= 1024,
            where="--threads",
            found=self.threads,
            expected="0 to 1024",
        )

    @property
    def threads_used(self) -> int:
        """Threads of each runtime."""
        return self.threads or available_threads()


def predict_of(model: RuntimeModel, output: str) -> Predict:
    """Return the function that gives one output of a model in its runtime."""
    return lambda inputs: model.predict(inputs, [output])[output]
