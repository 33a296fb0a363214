"""Conversion between parameters and the named tensors of another format.

A checkpoint is an untrusted file: every name and every shape is checked before memory is reserved
and a number is read.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config import Head, ModelConfig
from bertjax.errors import check, mismatch
from bertjax.interop.checkpoints.drop_patterns import advice
from bertjax.interop.checkpoints.tensor_names import Dialect
from bertjax.model import functional

# One parameter of each head. If a checkpoint has this parameter, it has the head.
_SIGN_OF_HEAD: dict[Head, str] = {
    "pooler": "pooler/kernel",
    "mlm": "mlm/bias",
    "nsp": "nsp/kernel",
}
_LAYERS = "encoder/layers/"  # beginning of the paths of parameters that are stacked over layers


class Tensors(NamedTuple):
    """The tensors of a checkpoint of another format, opened and not yet read."""

    where: str
    """File or folder, for errors."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of every tensor by its name."""
    read: Callable[[str], np.ndarray]
    """Return the numbers of a tensor, float32, by its name."""
    not_of_model: Collection[str] = frozenset()
    """Names of tensors that are known not to be parameters, for example an optimizer's."""
    file_names: Mapping[str, str] = MappingProxyType({})
    """The name in the file of each tensor that has another one there (`current_names`)."""

    def in_file(self, name: str) -> str:
        """Return the name that the tensor has in the file."""
        return self.file_names.get(name, name)


class Part(NamedTuple):
    """One tensor of the other format; a parameter stacked over layers consists of several."""

    name: str
    layer: int | None
    """Index on the parameter's first axis; None where the parameter is this one tensor."""
    shape: tuple[int, ...]


def has_prefix(tensors: Tensors, dialect: Dialect) -> bool:
    """Return whether the encoder's names begin with `dialect.prefix`.

    The names do not have the prefix if the encoder was saved alone.
    """
    return any(name.startswith(dialect.prefix) for name in tensors.shapes)


def heads_in(tensors: Tensors, dialect: Dialect) -> tuple[Head, ...]:
    """Return the heads that the checkpoint has, for `ModelConfig.heads`.

    Raises `UserError` for the head for sentence pairs without the pooler, whose output it reads.
    """
    prefixed = has_prefix(tensors, dialect)
    names: dict[Head, str] = {}
    for head, path in _SIGN_OF_HEAD.items():
        if dialect.has(path):
            names[head] = _as_saved(dialect.name(path), dialect, prefixed)
    heads = tuple(head for head, name in names.items() if name in tensors.shapes)
    if "nsp" in heads and "pooler" not in heads:
        raise mismatch(
            where=f"{tensors.where}: {names['pooler']}",
            found=f"no such tensor{_similar_name(tensors, names['pooler'], dialect)}",
            expected=f"one, for the head of {names['nsp']}",
        )
    return heads


def without_groups(params: functional.Params, groups: Collection[str]) -> dict[str, Any]:
    """Return `params` without these groups, such as `pooler`, at the top of the tree."""
    return {group: leaves for group, leaves in params.items() if group not in groups}


def resolve_copies(tensors: Tensors, dialect: Dialect) -> Tensors:
    """Return `tensors` with a tied copy under the original's name where the original is missing.

    PyTorch saves the decoder that is tied to the word embeddings under either name, or both.
    """
    prefixed = has_prefix(tensors, dialect)
    copy_of: dict[str, str] = {}
    for copy, path in dialect.copies.items():
        original = _as_saved(dialect.name(path), dialect, prefixed)
        if original not in tensors.shapes and copy in tensors.shapes:
            copy_of[original] = copy
    shapes = dict(tensors.shapes)
    for original, copy in copy_of.items():
        # Renamed and not added: `import_params` would read and compare the same numbers twice.
        shapes[original] = shapes.pop(copy)

    def read(name: str) -> np.ndarray:
        return tensors.read(copy_of.get(name, name))

    return tensors._replace(shapes=shapes, read=read)


def import_params(config: ModelConfig, dialect: Dialect, tensors: Tensors) -> dict[str, Any]:
    """Return the parameters of `config`, nested, float32 numpy arrays, from `tensors`.

    Raises `UserError` naming the first tensor that is missing, unknown to `config`, of another
    shape, a copy that differs from its original, or not finite. Memory is reserved only after every
    name and shape has been found right.
    """
    prefixed = has_prefix(tensors, dialect)
    leaves = flatten_dict(functional.shapes(config), sep="/")
    expected: set[str] = set()
    for path, leaf in leaves.items():
        for part in parts_of(path, leaf.shape, dialect, prefixed):
            _check_shape(tensors, part, dialect)
            expected.add(part.name)
    copies: dict[str, str] = {}
    for name, path in dialect.copies.items():
        if path in leaves:
            copies[_as_saved(name, dialect, prefixed)] = path
    _check_no_others(tensors, dialect, expected | copies.keys())
    params: dict[str, np.ndarray] = {}
    for path, leaf in leaves.items():
        params[path] = _read_param(tensors, path, leaf.shape, dialect, prefixed)
    # If a copy has other numbers, the decoder is not tied, and the head would give other results.
    for name, path in copies.items():
        if name in tensors.shapes:
            check(
                np.array_equal(tensors.read(name), params[path]),
                where=f"{tensors.where}: {name}",
                found="other numbers",
                expected=f"a copy of {dialect.name(path)}, to which it is tied",
            )
    return unflatten_dict(params, sep="/")


def export_tensors(
    params: functional.Params, dialect: Dialect, *, prefixed: bool = True
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, float32 array) of each tensor of `params`; the inverse of `import_params`.

    `prefixed` is False for an encoder saved alone, whose names lack `dialect.prefix`. One tensor is
    converted at a time, so that a large model is not in memory twice.
    """
    for path, leaf in flatten_dict(params, sep="/").items():
        stacked = np.asarray(leaf, np.float32)
        for part in parts_of(path, stacked.shape, dialect, prefixed):
            array = stacked if part.layer is None else stacked[part.layer]
            if dialect.is_transposed(path):
                # Heads and widths are joined before the transpose: `part.shape` is [out, in].
                array = array.reshape(part.shape[::-1]).T
            else:
                array = array.reshape(part.shape)
            yield part.name, np.ascontiguousarray(array)


def parts_of(path: str, shape: tuple[int, ...], dialect: Dialect, prefixed: bool) -> Iterator[Part]:
    """Yield the other format's tensors that hold the parameter at `path`."""
    name = _as_saved(dialect.name(path), dialect, prefixed)
    if path.startswith(_LAYERS):
        for i in range(shape[0]):
            yield Part(name.format(i), i, _foreign_shape(path, shape[1:], dialect))
    else:
        yield Part(name, None, _foreign_shape(path, shape, dialect))


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


def _check_shape(tensors: Tensors, part: Part, dialect: Dialect) -> None:
    if part.name not in tensors.shapes:
        raise mismatch(
            where=f"{tensors.where}: {part.name}",
            found=f"no such tensor{_similar_name(tensors, part.name, dialect)}",
            expected=f"one of shape {list(part.shape)}",
        )
    shape = tuple(tensors.shapes[part.name])
    check(
        shape == part.shape,
        where=f"{tensors.where}: {part.name}",
        found=f"shape {list(shape)}",
        expected=f"shape {list(part.shape)}",
    )


def _similar_name(tensors: Tensors, name: str, dialect: Dialect) -> str:
    """Return a note about the same name in another scope, or with more after it, if there is one.

    Such names show a model inside another, a variable in parts, averages without the variables, or
    weights that are still pruned (`weight_orig`).
    """
    without_prefix = name.removeprefix(dialect.prefix)
    for other in tensors.shapes:
        if other.startswith(name) or other.endswith(without_prefix):
            return f" (but {other})"
    return ""


def _check_no_others(tensors: Tensors, dialect: Dialect, expected: set[str]) -> None:
    """Raise `UserError` for tensors that are not used here: where they are, outputs are others."""
    others: list[str] = []
    for name in tensors.shapes:
        if not (name in expected or name in tensors.not_of_model or dialect.ignored(name)):
            others.append(name)
    if not others:
        return
    count = f" ({len(others)} such tensors)" if len(others) > 1 else ""
    option = advice(tensors.shapes, others, expected & tensors.shapes.keys())
    raise mismatch(
        where=f"{tensors.where}: {others[0]}",
        found=f"a tensor of shape {list(tensors.shapes[others[0]])}{count}",
        expected="only tensors of this model"
        + (f"; `bertjax import` leaves them out with {option}" if option else ""),
    )


def _read_param(
    tensors: Tensors, path: str, shape: tuple[int, ...], dialect: Dialect, prefixed: bool
) -> np.ndarray:
    param = np.empty(shape, np.float32)
    for part in parts_of(path, shape, dialect, prefixed):
        array = tensors.read(part.name)
        check(
            # NaN would show only in the model's outputs, where nothing names the tensor.
            np.isfinite(array).all(),
            where=f"{tensors.where}: {part.name}",
            found="numbers that are not finite",
            expected="finite ones",
        )
        if dialect.is_transposed(path):
            array = array.T
        # Into one array of all layers, so that no layer is in memory twice but this one.
        target = param if part.layer is None else param[part.layer]
        target[...] = array.reshape(target.shape)
    return param


def _as_saved(name: str, dialect: Dialect, prefixed: bool) -> str:
    """Return the name as it is where the encoder was saved with its prefix, or alone."""
    return name if prefixed else name.removeprefix(dialect.prefix)
