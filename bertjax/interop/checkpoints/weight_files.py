"""The weights of a folder: which file has them, and how shards become one set of tensors.

The files are untrusted. No pickle is executed. An index may name only files in its own folder. The
size of a tensor is compared with its file before memory is reserved for it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from etils import epath

from bertjax.errors import UserError, check
from bertjax.given_files import check_is_no_pipe
from bertjax.interop.checkpoints.flax_file import open_msgpack
from bertjax.interop.checkpoints.safetensors_file import INDEX, SAFETENSORS, open_safetensors
from bertjax.interop.checkpoints.tensor_mapping import Tensors
from bertjax.interop.checkpoints.tensor_names import Dialect, flax_dialect, torch_dialect
from bertjax.interop.checkpoints.torch_file import open_torch
from bertjax.storage import is_plain_name, read_json


class WeightFormat(NamedTuple):
    """One of the file formats that weights come in."""

    open: Callable[[epath.Path], Tensors]
    """Open a file; `UserError` naming it where it is damaged."""
    dialect: Callable[[str, str, int], Dialect]
    """Return the names that its tensors have in a family, with a class for a task and a form."""


def open_weights(folder: epath.Path) -> tuple[Tensors, Callable[[str, str, int], Dialect]]:
    """Return the weights of a folder, and the function from a family to their names.

    `model.safetensors` is read before `pytorch_model.bin` and that before `flax_model.msgpack`,
    and one file before shards, as `transformers` does. Raises `UserError` where there is none, or a
    file is damaged, or an index names a file outside the folder, a shard that is missing, or
    another shard's tensor.
    """
    for name, weight_format in FORMATS.items():
        file, index = folder / name, folder / f"{name}{INDEX}"
        if file.exists():
            check_is_no_pipe(file)
            return weight_format.open(file), weight_format.dialect
        if index.exists():
            return _open_shards(index, weight_format.open), weight_format.dialect
    raise UserError(
        f"{folder}: found no weights, expected {' or '.join(FORMATS)}, or shards and their {INDEX}"
    )


def has_weights(folder: epath.Path) -> bool:
    """Return whether the folder has a file or an index that `open_weights` reads."""
    names = [*FORMATS, *(f"{name}{INDEX}" for name in FORMATS)]
    return any((folder / name).exists() for name in names)


def _open_shards(index: epath.Path, open_file: Callable[[epath.Path], Tensors]) -> Tensors:
    file_of = read_json(index).get("weight_map") or {}
    check(
        isinstance(file_of, dict) and file_of,
        where=f"{index}: weight_map",
        found="no object",
        expected="a file's name a tensor",
    )
    shards: dict[str, Tensors] = {}
    names_of: dict[str, set[str]] = {}
    for name, file in file_of.items():
        check(
            # A path could make us read other files of this machine.
            is_plain_name(file),
            where=f"{index}: {name}",
            found=repr(file),
            expected="the name of a file beside it",
        )
        if file not in shards:
            check_is_no_pipe(index.parent / file)
            check(
                (index.parent / file).exists(),
                where=f"{index}: {name}",
                found=f"no file {file}",
                expected="it beside the index",
            )
            shards[file] = shard = open_file(index.parent / file)
            names_of[file] = {shard.in_file(each) for each in shard.shapes}
        check(
            name in names_of[file],
            where=f"{index.parent / file}: {name}",
            found="no such tensor",
            expected=f"it, as {index.name} says",
        )
    return _joined(index, shards, file_of)


def _joined(
    index: epath.Path, shards: Mapping[str, Tensors], file_of: Mapping[str, str]
) -> Tensors:
    """Return the tensors of all shards; `file_of` has the file of each name in the index."""
    shapes: dict[str, tuple[int, ...]] = {}
    file_names: dict[str, str] = {}
    shard_of: dict[str, Tensors] = {}
    for file, shard in shards.items():
        for name, shape in shard.shapes.items():
            where = f"{index.parent / file}: {shard.in_file(name)}"
            # Otherwise a tensor that the index does not name would be left out without a sign.
            check(
                file_of.get(shard.in_file(name)) == file,
                where=where,
                found="a tensor",
                expected="none, as the index says",
            )
            check(
                name not in shapes, where=where, found=f"a second tensor for {name}", expected="one"
            )
            shapes[name], shard_of[name] = shape, shard
            file_names[name] = shard.in_file(name)

    def read(name: str) -> np.ndarray:
        return shard_of[name].read(name)

    return Tensors(str(index), shapes, read, file_names=file_names)


FORMATS: dict[str, WeightFormat] = {
    SAFETENSORS: WeightFormat(open_safetensors, torch_dialect),
    "pytorch_model.bin": WeightFormat(open_torch, torch_dialect),
    "flax_model.msgpack": WeightFormat(open_msgpack, flax_dialect),
}
"""By the name of the file, in the order in which they are looked for."""
