"""The ranges that the inputs of matrices have on calibration data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import io_callback

from bertjax.compression.quantize.integers import Range
from bertjax.interop.programs.serving import INPUTS, ServedModel, serving_function
from bertjax.model.functional import Params
from bertjax.model.matrices import Place
from bertjax.model.matrix import Matrix


class _Record:
    """Least and largest inputs of one matrix, [layers]."""

    def __init__(self, layers: int) -> None:
        self.least = np.full(layers, np.inf, np.float32)
        self.largest = np.full(layers, -np.inf, np.float32)

    def note(self, layer: np.ndarray, least: np.ndarray, largest: np.ndarray) -> None:
        """Widen the range of a layer."""
        self.least[layer] = min(self.least[layer], least)
        self.largest[layer] = max(self.largest[layer], largest)


@partial(jax.tree_util.register_dataclass, data_fields=["values", "layer"], meta_fields=["record"])
@dataclass(frozen=True)
class _Watched(Matrix):
    """A float matrix that records the inputs of its products."""

    values: Array
    layer: Array
    """The number of the layer; 0 outside of the layers."""
    record: _Record

    def product(self, x: Array, inputs: int) -> Array:
        self._note(x)
        flat = self.values.reshape(math.prod(self.values.shape[:inputs]), -1)
        return jnp.dot(x, flat.astype(x.dtype))

    def rows(self, ids: Array) -> Array:
        return jnp.take(self.values, ids, axis=0)

    def row_products(self, x: Array) -> Array:
        self._note(x)
        return jnp.einsum("...e,ve->...v", x, self.values.astype(x.dtype))

    def _note(self, x: Array) -> None:
        # Not as a result of the function: a scan over the layers, or a matrix that is used twice,
        # would need a place for it in each module.
        wide = x.astype(jnp.float32)
        io_callback(self.record.note, None, self.layer, jnp.min(wide), jnp.max(wide))


def input_ranges(
    model: ServedModel,
    places: Mapping[str, Place],
    rows: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, Range]:
    """Return the range of the inputs of each matrix in `places` that products have.

    `rows` are the batches of calibration data; padding is part of the ranges. Tables that are only
    looked up have none.
    """
    records = {}
    for path, place in places.items():
        records[path] = _Record(len(model.params[path]) if place.is_stacked else 1)

    def watched(params: Params) -> Params:
        made: dict[str, Matrix] = {}
        for path, place in places.items():
            count = len(params[path])
            layer = jnp.arange(count) if place.is_stacked else jnp.zeros((), jnp.int32)
            made[path] = _Watched(params[path], layer, records[path])
        return {**params, **made}

    serve = jax.jit(serving_function(model.with_read(watched)))
    params = jax.device_put(dict(model.params))
    for inputs in rows:
        jax.block_until_ready(serve(params, *(inputs[name] for name in INPUTS)))
    jax.effects_barrier()
    ranges = {}
    for path, record in records.items():
        if np.isfinite(record.least).all():
            ranges[path] = Range(record.least, record.largest)
            if not places[path].is_stacked:
                ranges[path] = Range(record.least[0], record.largest[0])
    return ranges
