"""Where the numbers of a parameter lie in the tensors of another format."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from bertjax.interop.checkpoints.tensor_names import Dialect, Place
from bertjax.model.functional import LAYERS


class Part(NamedTuple):
    """What a parameter, or one row of it, has in a tensor of the other format."""

    name: str
    row: int | None
    """Index on the parameter's first axis, such as a layer; None: all of the parameter."""
    shape: tuple[int, ...]
    """Shape of the whole tensor."""
    place: Place
    heads: int = 1
    """Number of attention heads whose outputs are joined by themselves."""

    def of(self, array: np.ndarray) -> np.ndarray:
        """Return this part of the tensor, as a view of it."""
        if self.place.joined == 1:
            return array
        joined = array.reshape(self.heads, self.place.joined, -1, *array.shape[1:])
        return joined[:, self.place.number]


def parts_of(path: str, shape: tuple[int, ...], dialect: Dialect, prefixed: bool) -> Iterator[Part]:
    """Yield what the parameter at `path` has in the other format's tensors."""
    place = dialect.place(path)
    name, names = as_saved(place.name, dialect, prefixed), dialect.names
    if path in names.rows:
        for i in range(shape[0]):
            yield Part(name.format(i), i, (i + 2,), place)
    elif path.startswith(LAYERS):
        first = 1 if path.rpartition("/")[0] in names.not_in_first else 0
        heads = shape[-2] if place.per_head else 1
        whole = _foreign_shape(path, shape[1:], dialect)
        whole = (place.joined * whole[0], *whole[1:])
        for i in range(first, shape[0]):
            yield Part(name.format(i), i, whole, place, heads)
    else:
        yield Part(name, None, _foreign_shape(path, shape, dialect), place)


def _foreign_shape(path: str, shape: tuple[int, ...], dialect: Dialect) -> tuple[int, ...]:
    """Return the shape of one layer's parameter in the other format.

    bertjax keeps attention heads and their width as two axes, the other formats as one. Kernels are
    [in, out] here, and [out, in] where the dialect has them transposed.
    """
    if path.endswith("/kernel"):
        # Only the attention's output reads the heads; its input is the first two axes.
        inputs = 2 if path.endswith("attention/output/kernel") else 1
        shape = (int(np.prod(shape[:inputs])), int(np.prod(shape[inputs:])))
    elif path.endswith("/bias"):
        shape = (int(np.prod(shape)),)
    return shape[::-1] if dialect.is_transposed(path) else shape


def as_saved(name: str, dialect: Dialect, prefixed: bool) -> str:
    """Return the name as it is where the encoder was saved with its prefix, or alone."""
    return name if prefixed else name.removeprefix(dialect.prefix)


def memory_for(path: str, shape: tuple[int, ...], dialect: Dialect) -> np.ndarray:
    """Return memory for a parameter; what no tensor has is there."""
    if path in dialect.names.rows:
        return np.zeros(shape, np.float32)
    param = np.empty(shape, np.float32)
    module, _, leaf = path.rpartition("/")
    if module in dialect.names.not_in_first:
        # The norm that the first layer does not have.
        param[0] = 1.0 if leaf == "scale" else 0.0
    return param


def read_part(param: np.ndarray, part: Part, array: np.ndarray, *, is_transposed: bool) -> None:
    """Write what a tensor has of the parameter into it."""
    # Into one array of all layers, so that no layer is in memory twice but this one.
    target = param if part.row is None else param[part.row]
    own = part.of(array)
    if part.place.joined > 1:
        own = own.reshape(-1, *array.shape[1:])
    if is_transposed:
        own = own.T
    if target.ndim == 1:
        target = target[: own.size]  # a row may have more elements, which are 0
    target[...] = own.reshape(target.shape)


def write_part(array: np.ndarray, part: Part, leaf: ArrayLike, *, is_transposed: bool) -> None:
    """Write the parameter's part into a tensor of the other format."""
    own = np.asarray(leaf, np.float32)
    own = own if part.row is None else own[part.row]
    target = part.of(array)
    if is_transposed:
        # Heads and widths are joined before the transpose: the other format has [out, in].
        own = own.reshape(array.shape[1], -1).T
    if own.ndim == 1:
        own = own[: target.size]
    target[...] = own.reshape(target.shape)
