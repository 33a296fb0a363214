"""Tensors in safetensors files: opened one file at a time, written in one file or in shards."""

import json
from collections.abc import Iterator

import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bertjax.errors import UserError, one_line
from bertjax.interop.checkpoints.opened_files import (
    as_float32,
    check_float,
    check_local,
    current_names,
)
from bertjax.interop.checkpoints.tensor_mapping import Tensors
from bertjax.storage import write_whole

# Format: https://github.com/huggingface/safetensors#format.
SAFETENSORS = "model.safetensors"
INDEX = ".index.json"
MAX_SHARD_BYTES = 5_000_000_000  # the default of save_pretrained in transformers 4
# Names of types that the other formats call otherwise.
TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def open_safetensors(path: epath.Path) -> Tensors:
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
    names = current_names(path, shapes)

    def read(name: str) -> np.ndarray:
        dtype = dtypes[names[name]]
        check_float(TYPES.get(dtype, dtype), str(path), name)
        with safe_open(path, "numpy") as file:
            return as_float32(file.get_tensor(names[name]))

    current_shapes = {new: shapes[old] for new, old in names.items()}
    return Tensors(str(path), current_shapes, read, file_names=names)


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
