"""Conversion between parameters and the named tensors of another format.

A checkpoint is an untrusted file: every name and every shape is checked before memory is reserved
and a number is read.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config import Head, ModelConfig
from bertjax.errors import check, mismatch
from bertjax.interop.checkpoints.drop_patterns import advice
from bertjax.interop.checkpoints.families.family import SIGNS_OF_HEAD
from bertjax.interop.checkpoints.tensor_layout import (
    Part,
    as_saved,
    memory_for,
    parts_of,
    read_part,
    write_part,
)
from bertjax.interop.checkpoints.tensor_names import Dialect
from bertjax.model import functional


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


def has_prefix(tensors: Tensors, dialect: Dialect) -> bool:
    """Return whether the encoder's names begin with `dialect.prefix`.

    The names do not have the prefix if the encoder was saved alone.
    """
    return any(name.startswith(dialect.prefix) for name in tensors.shapes)


def heads_in(
    config: ModelConfig, tensors: Tensors, dialect: Dialect, *, of_task: bool = False
) -> tuple[Head, ...]:
    """Return the heads that the checkpoint has, for `ModelConfig.heads`.

    Some families have the pooler where their head for masked words has its first layer. `of_task`
    says that the checkpoint is of a class for a task, which has the pooler there.

    Raises `UserError` for the head for sentence pairs without the pooler, whose output it reads.
    """
    names: dict[Head, str] = {}
    for head in get_args(Head):
        if dialect.has(_sign_of_head(head, config)):
            names[head] = _name_of_sign(head, config, tensors, dialect)
    if of_task and "mlm" in names and names["mlm"] == names.get("pooler"):
        del names["mlm"]
    heads = tuple(head for head, name in names.items() if name in tensors.shapes)
    if "nsp" in heads and "pooler" not in heads:
        raise mismatch(
            where=f"{tensors.where}: {names['pooler']}",
            found=f"no such tensor{_similar_name(tensors, names['pooler'], dialect)}",
            expected=f"one, for the head of {names['nsp']}",
        )
    return heads


def _sign_of_head(head: Head, config: ModelConfig) -> str:
    """Return a parameter of the head. If a checkpoint has this parameter, it has the head."""
    paths = SIGNS_OF_HEAD[head]
    if head == "mlm" and "mlm" not in config.biases:
        return paths[2] if config.mlm_tied else paths[1]
    return paths[0]


def _name_of_sign(head: Head, config: ModelConfig, tensors: Tensors, dialect: Dialect) -> str:
    name = dialect.name(_sign_of_head(head, config))
    return as_saved(name, dialect, has_prefix(tensors, dialect))


def check_mlm(config: ModelConfig, tensors: Tensors, dialect: Dialect, kind: str) -> None:
    """Raise `UserError` if the head for masked words, which the class `kind` has, is missing."""
    name = _name_of_sign("mlm", config, tensors, dialect)
    if name not in tensors.shapes:
        raise mismatch(
            where=f"{tensors.where}: {name}",
            found=f"no such tensor{_similar_name(tensors, name, dialect)}",
            expected=f"one, for {kind}, which config.json names in architectures",
        )


def names_found(tensors: Tensors, dialect: Dialect) -> int:
    """Return how many names of the first layer and of the other modules the tensors have."""
    prefixed = has_prefix(tensors, dialect)
    names = [*dialect.names.tensors, *(f"{path}/kernel" for path in dialect.names.modules)]
    found = {as_saved(dialect.name(name), dialect, prefixed).format(0) for name in names}
    return len(found & tensors.shapes.keys())


def is_tied(tensors: Tensors, dialect: Dialect) -> bool:
    """Return whether the head for masked words has the word embeddings, as far as tensors tell."""
    prefixed = has_prefix(tensors, dialect)
    decoder = dialect.names.tensors.get("mlm/decoder", "")
    path = dialect.names.copies.get(decoder)
    name = as_saved(decoder, dialect, prefixed)
    if path is None or name not in tensors.shapes:
        return True
    original = as_saved(dialect.name(path), dialect, prefixed)
    # What is missing or of another shape is named by `import_params`.
    if tensors.shapes.get(original) != tensors.shapes[name]:
        return True
    return np.array_equal(tensors.read(name), tensors.read(original))


def shapes_in(config: ModelConfig, tensors: Tensors) -> Any:
    """Return `functional.shapes` of the model; of an impossible one, those of fewer layers.

    An untrusted configuration may claim any number of layers, and each of them has a tensor.
    """
    layers = min(config.num_hidden_layers, len(tensors.shapes) + 1)
    if config.share_layers:
        layers = 1  # whose parameters all layers have
    return functional.shapes(dataclasses.replace(config, num_hidden_layers=layers))


def without_groups(params: functional.Params, groups: Collection[str]) -> dict[str, Any]:
    """Return `params` without these groups, such as `pooler`, at the top of the tree."""
    return {group: leaves for group, leaves in params.items() if group not in groups}


def resolve_copies(tensors: Tensors, dialect: Dialect) -> Tensors:
    """Return `tensors` with a tied copy under the original's name where the original is missing.

    PyTorch saves the decoder that is tied to the word embeddings under either name, or both.
    """
    prefixed = has_prefix(tensors, dialect)
    copy_of: dict[str, str] = {}
    for copy, path in dialect.names.copies.items():
        original = as_saved(dialect.name(path), dialect, prefixed)
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
    leaves = flatten_dict(shapes_in(config, tensors), sep="/")
    parts: dict[str, list[tuple[str, Part]]] = {}
    for path, leaf in leaves.items():
        for part in parts_of(path, leaf.shape, dialect, prefixed):
            _check_shape(tensors, part, dialect)
            parts.setdefault(part.name, []).append((path, part))
    copies: dict[str, str] = {}
    for name, path in dialect.names.copies.items():
        if path in leaves and as_saved(name, dialect, prefixed) not in parts:
            copies[as_saved(name, dialect, prefixed)] = path
    _check_no_others(tensors, dialect, parts.keys() | copies.keys())
    params = {path: memory_for(path, leaf.shape, dialect) for path, leaf in leaves.items()}
    # By the tensor, so that one which has several parameters is read once.
    for name, those in parts.items():
        array = _finite(tensors, name)
        for path, part in those:
            read_part(params[path], part, array, is_transposed=dialect.is_transposed(path))
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
    leaves = flatten_dict(params, sep="/")
    parts: dict[str, list[tuple[str, Part]]] = {}
    for path, leaf in leaves.items():
        for part in parts_of(path, leaf.shape, dialect, prefixed):
            parts.setdefault(part.name, []).append((path, part))
    for name, those in parts.items():
        array = np.empty(those[0][1].shape, np.float32)
        for path, part in those:
            write_part(array, part, leaves[path], is_transposed=dialect.is_transposed(path))
        yield name, array
    if dialect.names.has_copies:
        for name, path in dialect.names.copies.items():
            if name not in parts:
                yield as_saved(name, dialect, prefixed), np.asarray(leaves[path], np.float32)


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


def _check_no_others(tensors: Tensors, dialect: Dialect, expected: Set[str]) -> None:
    """Raise `UserError` for tensors that are not used here: where they are, outputs are others."""
    others: list[str] = []
    for name in tensors.shapes:
        if not (name in expected or name in tensors.not_of_model or dialect.ignores(name)):
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


def _finite(tensors: Tensors, name: str) -> np.ndarray:
    array = tensors.read(name)
    check(
        # NaN would show only in the model's outputs, where nothing names the tensor.
        np.isfinite(array).all(),
        where=f"{tensors.where}: {name}",
        found="numbers that are not finite",
        expected="finite ones",
    )
    return array
