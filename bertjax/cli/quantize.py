"""`bertjax quantize RUN --to FOLDER [--max-loss 0.5%] [--activations KIND] [...]`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertjax.cli.arguments import fields_of, need, parse_subject, quiet_libraries, run_terminal


@dataclass(frozen=True)
class QuantizeCommand:
    """Write a model as a program with weights of 8 or 4 bits, measured beside the float32 one.

    RUN is a run, a checkpoint or a model folder of transformers. If the figure of the program loses
    more than --max-loss, nothing is written and the exit status is 3 (docs/compression.md).
    """

    to: str = ""
    """The new folder."""
    max_loss: str = "0.5%"
    """Most that the figure may lose, in percent of its value before."""
    format: Literal["onnx", "stablehlo"] = "onnx"
    """Program that is written: an ONNX file, or one of jax.export, in which all matrices of a kind
    in all layers are one.
    """
    bits: int = 8
    """Bits of a weight: 8, or 4 with --activations none."""
    activations: Literal["none", "dynamic", "static"] = "dynamic"
    """Inputs of products: left in float (none: only weights are quantized), quantized by the range
    that they have (dynamic), or by one that was measured on calibration data (static).
    """
    granularity: Literal["channel", "tensor"] = "channel"
    """One scale for each output of a matrix, or one for the whole matrix."""
    float_layers: int = 0
    """Most matrices that may stay in float, those of the largest measured error first, as long as
    the figure is out of bounds.
    """
    calibration: str = ""
    """Of activations static: a file of texts, one a line, or a prepared folder. By default training
    examples of the task, or training records of the run.
    """
    calibration_rows: int = 128
    """Rows of calibration data."""
    task: str = ""
    """Task whose head is exported, if the model was fine-tuned on several tasks."""
    sts: str = ""
    """File of rated pairs (SCORE TAB A TAB B) that a model without a task is measured on."""
    pooling: Literal["mean", "cls"] = "mean"
    """Vector of a sentence, for --sts."""
    seconds: float = 2.0
    """Seconds that the latency of each model is measured for each shape; 0: it is not."""
    threads: int = 0
    """Threads of each runtime; 0: as many as the process may use CPUs."""
    license: str = ""
    """Licence for the model card; by default the one that the source's README.md names."""
    drop: tuple[str, ...] = ()
    """Of a folder of transformers: tensors to leave out, as in import."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject(
        "quantize", QuantizeCommand(), words, "a run, a checkpoint or a model folder"
    )
    need(command.to, "quantize", "--to with the new folder")
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.compression.measuring import Measuring
    from bertjax.compression.quantize.options import QuantizeOptions
    from bertjax.compression.quantize.quantize import quantize

    with run_terminal() as progress:
        quantized = quantize(
            subject,
            command.to,
            fields_of(QuantizeOptions, command),
            fields_of(Measuring, command),
            drop=command.drop,
            license=command.license,
            progress=progress,
        )
    for line in [*quantized.card["table"], *quantized.card["notes"]]:
        print(line)
    return 0
