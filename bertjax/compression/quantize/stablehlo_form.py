"""Quantized programs of `jax.export`, whose matrices are integers that qwix has made."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from bertjax.compression.quantize.input_ranges import input_ranges
from bertjax.compression.quantize.integers import (
    Range,
    names_of,
    read_matrix,
    stored_integers,
)
from bertjax.compression.quantize.onnx_quantizer import Rows
from bertjax.compression.quantize.options import QuantizeOptions
from bertjax.compression.runtimes.process import Runtime, RuntimeModel
from bertjax.errors import check
from bertjax.interop.checkpoints.families.family import TASK_HEAD
from bertjax.interop.checkpoints.task_head import load_with_head
from bertjax.interop.programs.serving import ServedModel, served_model
from bertjax.interop.programs.stablehlo import PARAMS, PROGRAM, SIGNATURE, export_stablehlo
from bertjax.model.functional import Params
from bertjax.model.matrices import Place, kernel_place, matrix_places
from bertjax.training import checkpoint

INTEGERS = {4: "uint8", 8: "int8"}
"""Element type of stored integers by their bits: two of 4 bits are in one uint8."""


class StablehloForm:
    """A model of a run, from which programs with integers are made (`form.Form`)."""

    def __init__(
        self,
        run: epath.Path,
        output: str,
        options: QuantizeOptions,
        task: str = "",
        calibration: Rows = (),
    ) -> None:
        """Load the model with the head that the program's only `output` needs."""
        model, head = load_with_head(checkpoint.find_checkpoint(run)[1], task)
        self._served = served_model(model.config.model, model.params, (output,), head)
        self._places = served_places(self._served)
        self._options, self._calibration = options, calibration

    @property
    def runtime(self) -> Runtime:
        """JAX."""
        return "stablehlo"

    @property
    def files(self) -> Sequence[str]:
        """The program, its parameters, and what describes both."""
        return (PROGRAM, PARAMS, SIGNATURE)

    def weights(self) -> Sequence[str]:
        """Return the names of the matrices and tables; those of all layers are one."""
        return list(self._places)

    @cached_property
    def _ranges(self) -> Mapping[str, Range]:
        if self._options.activations != "static":
            return {}
        return input_ranges(self._served, self._places, self._calibration)

    def write(self, folder: Path, weights: Sequence[str]) -> None:
        """Write the program with these weights as integers."""
        chosen = {name: self._places[name] for name in weights}
        made = quantized_model(self._served, chosen, self._options, self._ranges)
        export_stablehlo(made, folder)

    def check_types(
        self, folder: Path, model: RuntimeModel, kept: Sequence[str]
    ) -> Mapping[str, int]:
        """Check the arrays that the runtime has loaded, their types and their bytes."""
        bits = self._options.bits
        for name, place in self._places.items():
            array = self._served.params[name]
            expected = Stored(str(array.dtype), array.nbytes)
            if name not in kept:
                layers = len(array) if place.is_stacked else 1
                # Half a byte left over at the end of a layer is stored too.
                size = layers * -(-array.size // layers * bits // 8)
                expected = Stored(INTEGERS[bits], size)
            stored = model.stored.get(name)
            check(
                stored is not None and tuple(stored) == expected,
                where=f"{folder.name}: {name}",
                found="no such array" if stored is None else f"{stored[0]}, {stored[1]:,} bytes",
                expected=f"{expected.dtype}, {expected.bytes:,} bytes",
            )
        totals: dict[str, int] = {}
        for kind, size in model.stored.values():
            totals[kind] = totals.get(kind, 0) + size
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    def stored_bytes(self, folder: Path) -> int:
        """Return the bytes of the program and its parameters."""
        return sum((folder / name).stat().st_size for name in (PROGRAM, PARAMS))


class Stored(NamedTuple):
    """An array in memory."""

    dtype: str
    bytes: int


def served_places(model: ServedModel) -> dict[str, Place]:
    """Return the place of each matrix that a program has, that of a task's head included."""
    places = {**matrix_places(model.config), f"{TASK_HEAD}/kernel": kernel_place()}
    return {path: place for path, place in places.items() if path in model.params}


def quantized_model(
    model: ServedModel,
    places: Mapping[str, Place],
    options: QuantizeOptions,
    ranges: Mapping[str, Range],
) -> ServedModel:
    """Return the model with integers for the matrices in `places`.

    `ranges` has the ranges of their inputs, for static activations.
    """
    params = dict(model.params)
    shapes = {path: params[path].shape for path in places}
    for path, place in places.items():
        params |= stored_integers(
            path,
            params[path],
            place,
            bits=options.bits,
            granularity=options.granularity,
            inputs=ranges.get(path),
        )

    def read(stored: Params) -> Params:
        matrices = {
            path: read_matrix(path, shape, stored, options.activations)
            for path, shape in shapes.items()
        }
        names = {name for path in places for name in names_of(path)}
        others = {path: leaf for path, leaf in stored.items() if path not in names}
        return {**others, **matrices}

    return model.with_params(jax.tree.map(np.asarray, params)).with_read(read)
