"""What the readers of several formats share: a local file, types, today's names of tensors."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from bertjax.errors import check
from bertjax.storage import is_local

# Types that are converted to float32. Those of 8 bits and less come with scales in other tensors.
FLOATS = ("float32", "float16", "bfloat16", "float64")


def check_local(path: epath.Path, kind: str) -> None:
    """Raise `UserError` where `path` is in a store, which the libraries that read it cannot do."""
    check(
        is_local(path),
        where=str(path),
        found=f"a {kind} in a store",
        expected="one on a disk of this machine",
    )


def check_float(dtype: str, where: str, name: str) -> None:
    """Raise `UserError` for numbers of a type that is not converted; `name` is the tensor's."""
    check(
        dtype in FLOATS,
        where=f"{where}: {name}",
        found=f"the type {dtype}",
        expected=f"one of {', '.join(FLOATS)}",
    )


def check_size(where: str, shape: Sequence[int], item_bytes: int, held: int) -> None:
    """Raise `UserError` where a tensor's numbers take more than the `held` bytes that are there.

    A few bytes may claim any shape, and memory would be reserved for it.
    """
    check(
        item_bytes * math.prod(shape) <= held,
        where=where,
        found=f"{held} bytes for the shape {list(shape)}",
        expected="all its numbers",
    )


def as_float32(array: np.ndarray) -> np.ndarray:
    """Return the numbers as float32; the array itself if they are."""
    # A float64 that float32 cannot hold becomes infinite, which `import_params` then refuses.
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def current_names(path: epath.Path, names: Iterable[str]) -> dict[str, str]:
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
