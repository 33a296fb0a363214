"""Files of named tensors, in one file or in shards: safetensors, PyTorch's and Flax's.

The files are untrusted. No pickle is executed. An index may name only files in its own folder. The
size of a tensor is compared with its file before memory is reserved for it.
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bertjax.errors import UserError, check, needs_extra, one_line
from bertjax.interop.checkpoints.tensor_mapping import Tensors
from bertjax.interop.checkpoints.tensor_names import Dialect, flax_dialect, torch_dialect
from bertjax.storage import is_local, is_plain_name, read_json, write_whole

# Format: https://github.com/huggingface/safetensors#format.
SAFETENSORS = "model.safetensors"
MAX_SHARD_BYTES = 5_000_000_000  # the default of save_pretrained in transformers 4
INDEX = ".index.json"
FLOATS = {"F64", "F32", "F16", "BF16"}  # types of safetensors that are converted to float32


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


def write_safetensors(
    folder: epath.Path, tensors: Iterator[tuple[str, np.ndarray]], max_shard_bytes: int
) -> None:
    """Write `tensors` to `folder` in one file, or in shards of `max_shard_bytes` and an index.

    A tensor larger than that has a shard of its own. The index is written last.
    """
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, array in tensors:
        if shards[-1] and size + array.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = array
        size += array.nbytes
    metadata = {"format": "pt"}  # transformers refuses a file that does not say for which library
    if len(shards) == 1:
        write_whole(folder / SAFETENSORS, save(shards[0], metadata))
        return
    file_of: dict[str, str] = {}
    total = 0
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        write_whole(folder / file, save(shard, metadata))
        file_of |= dict.fromkeys(shard, file)
        total += sum(array.nbytes for array in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": file_of}
    write_whole(folder / f"{SAFETENSORS}{INDEX}", (json.dumps(index, indent=2) + "\n").encode())


def check_local(path: epath.Path, kind: str) -> None:
    """Raise `UserError` where `path` is in a store, which the libraries that read it cannot do."""
    check(
        is_local(path),
        where=str(path),
        found=f"a {kind} in a store",
        expected="one on a disk of this machine",
    )


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


def _open_safetensors(path: epath.Path) -> Tensors:
    check_local(path, "file")
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict: it has no iterator)
                part = file.get_slice(name)  # of the header: no number is read yet
                shapes[name] = tuple(part.get_shape())
                dtypes[name] = part.get_dtype()
    except (SafetensorError, OSError) as error:
        # The library's own sentences, however long: they say at which byte.
        reason = one_line(error)
        raise UserError(f"{path}: found no whole safetensors file ({reason})") from error
    names = _current_names(path, shapes)

    def read(name: str) -> np.ndarray:
        dtype = dtypes[names[name]]
        check(
            dtype in FLOATS,
            where=f"{path}: {name}",
            found=f"the type {dtype}",
            expected=f"one of {', '.join(sorted(FLOATS))}",
        )
        # A float64 that float32 cannot hold becomes infinite, which `import_params` then refuses.
        with safe_open(path, "numpy") as file, np.errstate(over="ignore"):
            return file.get_tensor(names[name]).astype(np.float32)

    return Tensors(str(path), {new: shapes[old] for new, old in names.items()}, read)


def _open_torch(path: epath.Path) -> Tensors:
    with needs_extra("torch"):
        import torch
    check_local(path, "file")
    try:
        # Never plain unpickling: a pickle is a program. Zipped ones are mapped, older ones read.
        zipped = zipfile.is_zipfile(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except Exception as error:  # its unpickler raises any exception on damaged bytes
        raise UserError(
            f"{path}: found no whole file of PyTorch weights "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    check(
        isinstance(tensors, dict) and all(isinstance(key, str) for key in tensors),
        where=str(path),
        found=f"a {type(tensors).__name__}",
        expected="tensors by name",
    )
    for name, tensor in tensors.items():
        _check_torch_tensor(tensor, f"{path}: {name}")
    names = _current_names(path, tensors)

    def read(name: str) -> np.ndarray:
        tensor = tensors[names[name]]
        check(
            tensor.is_floating_point(),
            where=f"{path}: {name}",
            found=f"the type {tensor.dtype}",
            expected="floating point",
        )
        # Detached: a saved `nn.Parameter` asks for gradients, and numpy refuses such.
        return tensor.detach().to(torch.float32).numpy()

    shapes = {new: tuple(tensors[old].shape) for new, old in names.items()}
    return Tensors(str(path), shapes, read)


def _check_torch_tensor(tensor: object, where: str) -> None:
    """Raise `UserError` for what is no dense tensor with all its numbers in the file."""
    import torch

    # A sparse tensor has no such array, and one of the device `meta` no numbers at all.
    dense = (
        isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
    )
    check(dense, where=where, found=f"a {type(tensor).__name__}", expected="a dense tensor")
    assert isinstance(tensor, torch.Tensor)
    # With strides of 0, a few bytes would become a tensor of terabytes.
    held = tensor.untyped_storage().nbytes()
    check(
        tensor.numel() * tensor.element_size() <= held,
        where=where,
        found=f"{held} bytes for the shape {list(tensor.shape)}",
        expected="all its numbers",
    )


def _open_msgpack(path: epath.Path) -> Tensors:
    from flax.serialization import msgpack_restore
    from flax.traverse_util import flatten_dict

    leaves: dict[str, Any] = {}
    try:
        tree = msgpack_restore(path.read_bytes())
        if isinstance(tree, dict):
            leaves = flatten_dict(tree, sep="/")
    except Exception as error:  # msgpack, numpy and flax each raise their own on damaged bytes
        raise UserError(
            f"{path}: found no whole msgpack file of Flax "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    check(
        isinstance(tree, dict),
        where=str(path),
        found=f"a {type(tree).__name__}",
        expected="tensors by name",
    )
    for name, leaf in leaves.items():
        check(
            isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.number),
            where=f"{path}: {name}",
            found=f"a {type(leaf).__name__}",
            expected="an array of numbers",
        )

    def read(name: str) -> np.ndarray:
        return leaves[name].astype(np.float32)

    return Tensors(str(path), {name: leaf.shape for name, leaf in leaves.items()}, read)


def _current_names(path: epath.Path, names: Iterable[str]) -> dict[str, str]:
    """Return the name that a tensor has today, to that in the file.

    The first BERTs for PyTorch kept TensorFlow's `gamma` and `beta` in layer norms.
    """
    old_names: dict[str, str] = {}
    for name in names:
        new = _current_name(name)
        check(
            new not in old_names,
            where=f"{path}: {name}",
            found=f"a second tensor for {new}",
            expected="one",
        )
        old_names[new] = name
    return old_names


def _current_name(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    if module.lower().endswith(("layernorm", "layer_norm")):
        leaf = {"gamma": "weight", "beta": "bias"}.get(leaf, leaf)
    return f"{module}.{leaf}" if module else name


FORMATS: dict[str, WeightFormat] = {
    SAFETENSORS: WeightFormat(_open_safetensors, torch_dialect),
    "pytorch_model.bin": WeightFormat(_open_torch, torch_dialect),
    "flax_model.msgpack": WeightFormat(_open_msgpack, flax_dialect),
}
"""By the name of the file, in the order in which they are looked for."""
