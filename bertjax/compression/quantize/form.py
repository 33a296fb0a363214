"""What a form of quantized programs is: how its files are made, checked and opened."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bertjax.compression.runtimes.process import Runtime, RuntimeModel


class Form(Protocol):
    """The float32 program of one model, from which programs with integers are made."""

    @property
    def runtime(self) -> Runtime:
        """The runtime that opens the programs."""
        ...

    @property
    def files(self) -> Sequence[str]:
        """Names of the files of a program; others beside the float32 one belong to both."""
        ...

    def weights(self) -> Sequence[str]:
        """Return the names of the matrices and tables that can be quantized."""
        ...

    def write(self, folder: Path, weights: Sequence[str]) -> None:
        """Write a program with these weights as integers into an empty folder."""
        ...

    def check_types(
        self, folder: Path, model: RuntimeModel, kept: Sequence[str]
    ) -> Mapping[str, int]:
        """Check that the weights of a program are integers, but those `kept` in float.

        `model` is the program in its runtime. Returns the bytes of all stored tensors of each
        element type, the largest first. Raises `UserError` for the first weight of another type.
        """
        ...

    def stored_bytes(self, folder: Path) -> int:
        """Return the bytes of a program's files."""
        ...
