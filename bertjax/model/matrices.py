"""Which parameters are matrices: the kernels of linear layers, and tables of embeddings."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config import ModelConfig
from bertjax.model import functional
from bertjax.model.functional import LAYERS, Params
from bertjax.model.layers import Linear
from bertjax.model.matrix import FakeQuantized

TABLES = (
    "embeddings/word/embedding",
    "embeddings/position/embedding",
    "embeddings/token_type/embedding",
    "mlm/decoder",
)
"""Tables [V, E] of vectors, each of which has a scale of its own where scales are by channel."""


class Place(NamedTuple):
    """The axes of a matrix among the parameters."""

    summed: tuple[int, ...]
    """Axes that a product with it sums over."""
    is_stacked: bool
    """True if the first axis is that of the layers."""


def matrix_places(config: ModelConfig) -> dict[str, Place]:
    """Return the place of each matrix of a model by its path, such as `pooler/kernel`.

    The heads of tasks are not among them.
    """
    inputs: dict[str, int] = {}

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, Linear):
            path = "/".join((*context.module.path, "kernel"))
            inputs[path] = len(context.module.inputs)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes = functional.shapes(config)
    places = {}
    for path in flatten_dict(shapes, sep="/"):
        if path in TABLES:
            places[path] = Place((1,), False)
        elif path in inputs:
            places[path] = kernel_place(inputs[path], path.startswith(LAYERS))
    return places


def kernel_place(inputs: int = 1, is_stacked: bool = False) -> Place:
    """Return the place of a kernel whose first axes, after that of the layers, are summed over."""
    first = int(is_stacked)
    return Place(tuple(range(first, first + inputs)), is_stacked)


def with_matrices(params: Params, made: Mapping[str, Any]) -> Params:
    """Return the tree of `params` with other values at the paths of `made`."""
    # A group without parameters, such as a norm without scale and bias, stays one.
    flat = flatten_dict(params, sep="/", keep_empty_nodes=True)
    return unflatten_dict({**flat, **made}, sep="/")


def fake_quantized(params: Params, paths: Iterable[str], bits: int, inputs_too: bool) -> Params:
    """Return the tree of `params` with a `FakeQuantized` at those of the `paths` that it has."""
    flat = flatten_dict(params, sep="/")
    made = {path: FakeQuantized(flat[path], bits, inputs_too) for path in paths if path in flat}
    return with_matrices(params, made)
