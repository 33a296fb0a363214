"""The weights of a folder: which file has them, and how shards become one set of tensors.

The files are untrusted. No pickle is executed. An index may name only files in its own folder. The
size of a tensor is compared with its file before memory is reserved for it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from etils import epath

from bertjax.errors import UserError, check
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
    dialect: Callable[[str], Dialect]
    """Return the names that its tensors have in an architecture."""


def open_weights(folder: epath.Path) -> tuple[Tensors, Callable[[str], Dialect]]:
    """Return the weights of a folder, and the function from architecture to their names.

    `model.safetensors` is read before `pytorch_model.bin` and that before `flax_model.msgpack`,
    and one file before shards, as `transformers` does. Raises `UserError` where there is none, or a
    file is damaged, or an index names a file outside the folder, a shard that is missing, or
    another shard's tensor.
    """
    for name, weight_format in FORMATS.items():
        file, index = folder / name, folder / f"{name}{INDEX}"
        if file.exists():
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
    for name, file in file_of.items():
        check(
            # A path could make us read other files of this machine.
            is_plain_name(file),
            where=f"{index}: {name}",
            found=repr(file),
            expected="the name of a file beside it",
        )
        if file not in shards:
            check(
                (index.parent / file).exists(),
                where=f"{index}: {name}",
                found=f"no file {file}",
                expected="it beside the index",
            )
            shards[file] = open_file(index.parent / file)
        check(
            name in shards[file].shapes,
            where=f"{index.parent / file}: {name}",
            found="no such tensor",
            expected=f"it, as {index.name} says",
        )
    # Otherwise a tensor that the index does not name would be left out without a sign.
    for file, shard in shards.items():
        for name in shard.shapes:
            check(
                file_of.get(name) == file,
                where=f"{index.parent / file}: {name}",
                found="a tensor",
                expected="none, as the index says",
            )
    shapes = {name: shards[file].shapes[name] for name, file in file_of.items()}

    def read(name: str) -> np.ndarray:
        return shards[file_of[name]].read(name)

    return Tensors(str(index), shapes, read)


FORMATS: dict[str, WeightFormat] = {
    SAFETENSORS: WeightFormat(open_safetensors, torch_dialect),
    "pytorch_model.bin": WeightFormat(open_torch, torch_dialect),
    "flax_model.msgpack": WeightFormat(open_msgpack, flax_dialect),
}
"""By the name of the file, in the order in which they are looked for."""
