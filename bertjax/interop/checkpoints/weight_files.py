"""Files of named tensors, in one piece or in shards: safetensors, and PyTorch's by its restricted
loader.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bertjax.errors import UserError, check
from bertjax.interop.checkpoints.tensor_mapping import Tensors
from bertjax.interop.checkpoints.tensor_names import Dialect, flax_dialect, torch_dialect
from bertjax.storage import is_local, is_plain_name, read_json, write_whole

SAFETENSORS = "model.safetensors"
MAX_SHARD_BYTES = 5_000_000_000
INDEX = ".index.json"
FLOATS = {"F64", "F32", "F16", "BF16"}


def open_weights(folder: epath.Path) -> tuple[Tensors, Callable[[str], Dialect]]:
    """The weights of a folder, in one file or in the shards that an index names, and whose names
    they have.

    `model.safetensors` is taken before `pytorch_model.bin` and that before `flax_model.msgpack`,
    and one file before shards, as `transformers` does. Raises `UserError` where there is none, or a
    file is damaged, or an index names a file outside the folder, a shard that is missing, or
    another shard's tensor.
    """
    for name, (opened, dialect_of) in FORMATS.items():
        if (folder / name).exists():
            return opened(folder / name), dialect_of
        if (folder / f"{name}{INDEX}").exists():
            return _open_shards(folder / f"{name}{INDEX}", opened), dialect_of
    raise UserError(
        f"{folder}: found no weights, expected {' or '.join(FORMATS)}, or shards and their {INDEX}"
    )


def has_weights(folder: epath.Path) -> bool:
    """Whether the folder has weights in a file, or an index of shards, that `open_weights` looks
    for.
    """
    return any((folder / f"{name}{ending}").exists() for name in FORMATS for ending in ("", INDEX))


def write_safetensors(
    folder: epath.Path, tensors: Iterator[tuple[str, np.ndarray]], max_shard_bytes: int
) -> None:
    """Write `tensors` to `folder`, in one file, or in shards of `max_shard_bytes` at most and an
    index, which is last.

    A tensor larger than that has a shard of its own.
    """
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, array in tensors:
        if shards[-1] and size + array.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = array
        size += array.nbytes
    if len(shards) == 1:
        write_whole(folder / SAFETENSORS, save(shards[0], {"format": "pt"}))
        return
    places: dict[str, str] = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        write_whole(folder / file, save(shard, {"format": "pt"}))
        places |= dict.fromkeys(shard, file)
    total = sum(array.nbytes for shard in shards for array in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_whole(folder / f"{SAFETENSORS}{INDEX}", (json.dumps(index, indent=2) + "\n").encode())


def _open_shards(index: epath.Path, opened: Any) -> Tensors:
    places = read_json(index).get("weight_map") or {}
    check(
        isinstance(places, dict) and bool(places),
        where=f"{index}: weight_map",
        found="no object",
        expected="a file's name a tensor",
    )
    shards: dict[str, Tensors] = {}
    for name, file in places.items():
        check(
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
            shards[file] = opened(index.parent / file)
        check(
            name in shards[file].shapes,
            where=f"{index.parent / file}: {name}",
            found="no such tensor",
            expected=f"it, as {index.name} says",
        )
    for file, shard in shards.items():
        for name in shard.shapes:
            check(
                places.get(name) == file,
                where=f"{index.parent / file}: {name}",
                found="a tensor",
                expected="none, as the index says",
            )
    shapes = {name: shards[file].shapes[name] for name, file in places.items()}
    return Tensors(str(index), shapes, lambda name: shards[places[name]].read(name))


def _open_safetensors(path: epath.Path) -> Tensors:
    check(
        is_local(path),
        where=str(path),
        found="a file in a store",
        expected="one on a disk of this machine",
    )
    try:
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            kinds = {name: part.get_dtype() for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: found no whole safetensors file ({' '.join(str(error).split())})"
        ) from error
    names = _modern(path, shapes)

    def read(name: str) -> np.ndarray:
        kind = kinds[names[name]]
        check(
            kind in FLOATS,
            where=f"{path}: {name}",
            found=f"the type {kind}",
            expected=f"one of {', '.join(sorted(FLOATS))}",
        )
        with (
            safe_open(path, "numpy") as file,
            np.errstate(over="ignore"),
        ):  # what is too large is not finite then
            return file.get_tensor(names[name]).astype(np.float32)

    return Tensors(str(path), {name: shapes[there] for name, there in names.items()}, read)


def _open_torch(path: epath.Path) -> Tensors:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: needs the package torch, which is not installed (bertjax[torch])"
        ) from error
    check(
        is_local(path),
        where=str(path),
        found="a file in a store",
        expected="one on a disk of this machine",
    )
    try:
        # Never plain unpickling: a pickle is a program. Zipped ones are mapped, older ones read.
        zipped = zipfile.is_zipfile(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except Exception as error:  # of damaged bytes its unpickler raises whatever comes
        first = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: found no whole file of PyTorch weights ({type(error).__name__}: {first})"
        ) from error
    good = isinstance(found, dict) and all(isinstance(key, str) for key in found)
    check(good, where=str(path), found=f"a {type(found).__name__}", expected="tensors by name")
    for name, tensor in found.items():
        dense = (
            isinstance(tensor, torch.Tensor)
            and tensor.layout == torch.strided
            and tensor.device.type == "cpu"
        )
        check(
            dense,
            where=f"{path}: {name}",
            found=f"a {type(tensor).__name__}",
            expected="a dense tensor",
        )
        held = tensor.untyped_storage().nbytes()
        fits = tensor.numel() * tensor.element_size() <= held  # strides of 0 make much of little
        check(
            fits,
            where=f"{path}: {name}",
            found=f"{held} bytes for the shape {list(tensor.shape)}",
            expected="all its numbers",
        )
    names = _modern(path, found)

    def read(name: str) -> np.ndarray:
        tensor = found[names[name]]
        check(
            tensor.is_floating_point(),
            where=f"{path}: {name}",
            found=f"the type {tensor.dtype}",
            expected="floating point",
        )
        return tensor.detach().to(torch.float32).numpy()

    return Tensors(
        str(path), {name: tuple(found[there].shape) for name, there in names.items()}, read
    )


def _open_msgpack(path: epath.Path) -> Tensors:
    from flax.serialization import msgpack_restore
    from flax.traverse_util import flatten_dict

    try:
        found = msgpack_restore(path.read_bytes())
        leaves = flatten_dict(found, sep="/") if isinstance(found, dict) else {}
    except Exception as error:  # msgpack, numpy and flax each raise their own of damaged bytes
        first = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: found no whole msgpack file of Flax ({type(error).__name__}: {first})"
        ) from error
    check(
        isinstance(found, dict),
        where=str(path),
        found=f"a {type(found).__name__}",
        expected="tensors by name",
    )
    for name, leaf in leaves.items():
        good = isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.number)
        check(
            good,
            where=f"{path}: {name}",
            found=f"a {type(leaf).__name__}",
            expected="an array of numbers",
        )
    return Tensors(
        str(path),
        {n: leaf.shape for n, leaf in leaves.items()},
        lambda n: leaves[n].astype(np.float32),
    )


def _modern(path: epath.Path, names: Mapping[str, Any]) -> dict[str, str]:
    """Today's name of each tensor, and that in the file: layer norms were once called as TensorFlow
    does.
    """
    modern: dict[str, str] = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        norm = module.lower().endswith(("layernorm", "layer_norm"))
        new = (
            f"{module}.{({'gamma': 'weight', 'beta': 'bias'} if norm else {}).get(leaf, leaf)}"
            if module
            else name
        )
        check(
            new not in modern,
            where=f"{path}: {name}",
            found=f"a second tensor for {new}",
            expected="one",
        )
        modern[new] = name
    return modern


FORMATS: dict[str, tuple[Callable[[epath.Path], Tensors], Callable[[str], Dialect]]] = {
    SAFETENSORS: (_open_safetensors, torch_dialect),
    "pytorch_model.bin": (_open_torch, torch_dialect),
    "flax_model.msgpack": (_open_msgpack, flax_dialect),
}
