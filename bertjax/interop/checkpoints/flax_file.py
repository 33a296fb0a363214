"""Tensors in the msgpack files that Flax models of `transformers` 4 wrote."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from bertjax.errors import UserError, check, one_line
from bertjax.interop.checkpoints.opened_files import as_float32, check_float
from bertjax.interop.checkpoints.tensor_mapping import Tensors


def open_msgpack(path: epath.Path) -> Tensors:
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
            # numpy counts bfloat16 as no number; jax does.
            isinstance(leaf, np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.number),
            where=f"{path}: {name}",
            found=f"a {type(leaf).__name__}",
            expected="an array of numbers",
        )

    def read(name: str) -> np.ndarray:
        array = leaves[name]
        check_float(str(array.dtype), str(path), name)
        return as_float32(array)

    return Tensors(str(path), {name: leaf.shape for name, leaf in leaves.items()}, read)
