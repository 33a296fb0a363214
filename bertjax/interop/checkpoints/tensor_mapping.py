"""Parameters from and to named tensors of another format, every name and shape checked before a
number is read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.interop.checkpoints.tensor_names import Dialect
from bertjax.model import functional

_HEADS = {"pooler": "pooler/kernel", "mlm": "mlm/bias", "nsp": "nsp/kernel"}
Shape = tuple[int, ...]


class Tensors(NamedTuple):
    """A checkpoint of another format, opened and not yet read."""

    where: str
    """File or folder, for errors."""
    shapes: Mapping[str, Shape]
    """Every tensor's shape by its name."""
    read: Callable[[str], np.ndarray]
    """A tensor's numbers, float32, by its name."""


def has_base(tensors: Tensors, dialect: Dialect) -> bool:
    """Whether the encoder's names begin with the architecture's; of an encoder saved alone they do
    not.
    """
    return any(name.startswith(dialect.base) for name in tensors.shapes)


def heads_in(tensors: Tensors, dialect: Dialect) -> tuple[Any, ...]:
    """The heads of which the checkpoint has a tensor at least, for `ModelConfig.heads`."""
    based = has_base(tensors, dialect)
    known = {head: path for head, path in _HEADS.items() if dialect.has(path)}
    return tuple(
        h
        for h, path in known.items()
        if _in_file(dialect.name(path), dialect, based) in tensors.shapes
    )


def drop_tensors(tensors: Tensors, drop: Sequence[str]) -> Tensors:
    """`tensors` but those whose names begin with an entry of `drop`; `UserError` for an entry that
    none does.
    """
    for beginning in drop:
        found = bool(beginning) and any(name.startswith(beginning) for name in tensors.shapes)
        check(
            found,
            where=f"{tensors.where}: --drop {beginning}",
            found="no tensor of such a name",
            expected="the beginning of one",
        )
    kept = {
        name: shape for name, shape in tensors.shapes.items() if not name.startswith(tuple(drop))
    }
    return tensors._replace(shapes=kept)


def resolve_copies(tensors: Tensors, dialect: Dialect) -> Tensors:
    """`tensors` where a second copy of a tensor stands in for the first, if that is not there."""
    based = has_base(tensors, dialect)
    first = {
        _in_file(dialect.name(path), dialect, based): copy for copy, path in dialect.copies.items()
    }
    instead = {
        name: copy
        for name, copy in first.items()
        if name not in tensors.shapes and copy in tensors.shapes
    }
    named = {copy: name for name, copy in instead.items()}
    shapes = {named.get(name, name): shape for name, shape in tensors.shapes.items()}
    return tensors._replace(shapes=shapes, read=lambda name: tensors.read(instead.get(name, name)))


def import_params(config: ModelConfig, dialect: Dialect, tensors: Tensors) -> dict[str, Any]:
    """The parameters of `config`, float32 numpy, from the checkpoint's tensors.

    Raises `UserError` naming the first tensor that is missing, is there beyond those of `config`,
    has another shape, is a copy that differs from its original, or is not finite; memory is taken
    only after every name and shape has fitted.
    """
    based = has_base(tensors, dialect)
    wanted = flatten_dict(functional.shapes(config), sep="/")
    used: set[str] = set()
    for path, leaf in wanted.items():
        for name, _, shape in _pieces(path, leaf.shape, dialect, based):
            check(
                name in tensors.shapes,
                where=f"{tensors.where}: {name}",
                found="no such tensor",
                expected=f"one of shape {list(shape)}",
            )
            found = tuple(tensors.shapes[name])
            check(
                found == shape,
                where=f"{tensors.where}: {name}",
                found=f"shape {list(found)}",
                expected=f"shape {list(shape)}",
            )
            used.add(name)
    copies = {
        _in_file(name, dialect, based): path
        for name, path in dialect.copies.items()
        if path in wanted
    }
    for name in tensors.shapes:
        known = name in used or name in copies or dialect.ignored(name)
        expected = "a tensor of this model (to leave it out: --drop with the beginning of its name)"
        check(
            known,
            where=f"{tensors.where}: {name}",
            found=f"a tensor of shape {list(tensors.shapes[name])}",
            expected=expected,
        )
    params = {
        path: _read(tensors, path, leaf.shape, dialect, based) for path, leaf in wanted.items()
    }
    for name, path in copies.items():
        if name in tensors.shapes:
            same = np.array_equal(tensors.read(name), params[path])
            check(
                same,
                where=f"{tensors.where}: {name}",
                found="other numbers",
                expected=f"a copy of {dialect.name(path)}, to which it is tied",
            )
    return unflatten_dict(params, sep="/")


def export_tensors(params: Any, dialect: Dialect, *, based: bool = True) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of `params` in their names and layouts, one after another; the inverse of `take`."""
    for path, leaf in flatten_dict(params, sep="/").items():
        stacked = np.asarray(leaf, np.float32)
        for name, index, shape in _pieces(path, stacked.shape, dialect, based):
            ours = stacked if index is None else stacked[index]
            flat = ours.reshape(shape[::-1] if dialect.is_transposed(path) else shape)
            yield name, np.ascontiguousarray(flat.T if dialect.is_transposed(path) else flat)


def _pieces(
    path: str, shape: Shape, dialect: Dialect, based: bool
) -> Iterator[tuple[str, int | None, Shape]]:
    """(their name, index on our first axis or None, their shape) of each tensor that our leaf is
    made of.
    """
    name = _in_file(dialect.name(path), dialect, based)
    if path.startswith("encoder/layers/"):
        for i in range(shape[0]):
            yield name.format(i), i, _their_shape(path, shape[1:], dialect)
    else:
        yield name, None, _their_shape(path, shape, dialect)


def _their_shape(path: str, shape: Shape, dialect: Dialect) -> Shape:
    """Heads and their width are one axis with them, and matrices may lie the other way round."""
    if path.endswith("/kernel"):
        inputs = 2 if path.endswith("attention/output/kernel") else 1
        shape = (int(np.prod(shape[:inputs])), int(np.prod(shape[inputs:])))
    elif path.endswith("/bias"):
        shape = (int(np.prod(shape)),)
    return shape[::-1] if dialect.is_transposed(path) else shape


def _read(tensors: Tensors, path: str, shape: Shape, dialect: Dialect, based: bool) -> np.ndarray:
    made = np.empty(shape, np.float32)
    for name, index, _ in _pieces(path, shape, dialect, based):
        theirs = tensors.read(name)
        check(
            np.isfinite(theirs).all(),
            where=f"{tensors.where}: {name}",
            found="numbers that are not finite",
            expected="finite ones",
        )
        target = made if index is None else made[index]
        target[...] = (theirs.T if dialect.is_transposed(path) else theirs).reshape(target.shape)
    return made


def _in_file(name: str, dialect: Dialect, based: bool) -> str:
    return name if based else name.removeprefix(dialect.base)
