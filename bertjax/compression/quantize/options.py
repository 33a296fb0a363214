"""The choices of `quantize`, checked before anything is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from bertjax.errors import check

Activations = Literal["none", "dynamic", "static"]
Granularity = Literal["channel", "tensor"]
Format = Literal["onnx", "stablehlo"]
BITS: Mapping[str, tuple[int, ...]] = {"onnx": (4, 8), "stablehlo": (4, 8)}
"""Numbers of bits of weights in each format."""


@dataclass(frozen=True)
class QuantizeOptions:
    """How a model becomes one of int8."""

    format: Format = "onnx"
    """The program: an ONNX file by ONNX Runtime's quantizer, or one of jax.export by qwix."""
    bits: int = 8
    """Bits of a weight."""
    activations: Activations = "dynamic"
    """none: weights alone are stored as int8, products are computed in float32. dynamic: each
    product quantizes its input, by the range that it has. static: by a range that was measured on
    calibration data.
    """
    granularity: Granularity = "channel"
    """One scale for each output of a matrix, or one for the whole matrix."""
    float_layers: int = 0
    """Most matrices that may stay in float, those of the largest measured error first, as long as
    the figure is out of bounds.
    """
    calibration: str = ""
    """Of activations static: a file of texts, one a line, or a prepared folder. By default the
    training examples of the task, or the training records of the run.
    """
    calibration_rows: int = 128
    """Rows that ranges are measured on."""

    def __post_init__(self) -> None:
        choices = {"format": Format, "activations": Activations, "granularity": Granularity}
        for name, kind in choices.items():
            value, known = getattr(self, name), get_args(kind)
            check(
                value in known,
                where=f"--{name}",
                found=repr(value),
                expected=f"one of {', '.join(known)}",
            )
        known_bits = " or ".join(map(str, BITS[self.format]))
        check(
            self.bits in BITS[self.format],
            where="--bits",
            found=self.bits,
            expected=f"{known_bits} in format {self.format}",
        )
        check(
            self.bits == 8 or self.activations == "none",
            where="--activations",
            found=self.activations,
            expected=f"none with --bits {self.bits}: products are of 8 bits",
        )
        check(
            0 <= self.float_layers <= 1000,
            where="--float-layers",
            found=self.float_layers,
            expected="0 to 1000",
        )
        check(
            1 <= self.calibration_rows <= 100_000,
            where="--calibration-rows",
            found=self.calibration_rows,
            expected="1 to 100000",
        )
        check(
            not self.calibration or self.activations == "static",
            where="--calibration",
            found=f"activations {self.activations}",
            expected="static: other activations are not calibrated",
        )

    @property
    def name(self) -> str:
        """The form of the weights in words, such as `int8 per channel`."""
        return f"int{self.bits} per {self.granularity}"
