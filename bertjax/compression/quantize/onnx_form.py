"""Quantized programs of ONNX, made by ONNX Runtime's quantizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bertjax.compression.quantize.graph_weights import (
    Weight,
    check_types,
    quantizable_weights,
    read_graph,
    stored_bytes,
    untie,
)
from bertjax.compression.quantize.onnx_quantizer import Rows, quantize_file
from bertjax.compression.quantize.options import QuantizeOptions
from bertjax.compression.runtimes.process import Runtime, RuntimeModel
from bertjax.interop.programs.onnx.export import PROGRAM, WEIGHTS


@dataclass(frozen=True)
class OnnxForm:
    """An exported file, from which files with integers are made (`form.Form`)."""

    exact: Path
    """Folder of the float32 file."""
    scratch: Path
    options: QuantizeOptions
    calibration: Rows

    @property
    def runtime(self) -> Runtime:
        """ONNX Runtime."""
        return "onnx"

    @property
    def files(self) -> Sequence[str]:
        """The graph, and weights beside it."""
        return (PROGRAM, WEIGHTS)

    @cached_property
    def _source(self) -> Path:
        """The file to quantize: the exported one, or one without transposed tables."""
        if (self.exact / WEIGHTS).exists():
            return self.exact / PROGRAM
        folder = self.scratch / "untied"
        folder.mkdir()
        is_new = untie(self.exact / PROGRAM, folder / PROGRAM)
        return folder / PROGRAM if is_new else self.exact / PROGRAM

    @cached_property
    def _weights(self) -> dict[str, Weight]:
        return {weight.name: weight for weight in quantizable_weights(read_graph(self._source))}

    def weights(self) -> Sequence[str]:
        """Return the names of the matrices and tables, one for each layer."""
        return list(self._weights)

    def write(self, folder: Path, weights: Sequence[str]) -> None:
        """Write the file with these weights as integers."""
        quantize_file(
            self._source,
            folder / PROGRAM,
            self.options,
            [self._weights[name] for name in weights],
            calibration=self.calibration,
            external=(self._source.parent / WEIGHTS).exists(),
        )

    def check_types(
        self, folder: Path, model: RuntimeModel, kept: Sequence[str]
    ) -> Mapping[str, int]:
        """Check the types in the file: ONNX Runtime does not tell them."""
        weights = list(self._weights.values())
        return check_types(folder / PROGRAM, weights, kept, self.options.bits)

    def stored_bytes(self, folder: Path) -> int:
        """Return the bytes of the graph, and of weights beside it."""
        return stored_bytes(folder)
