"""Reading of a checkpoint's arrays, compared with the digests that were saved with them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from bertjax.errors import one_line
from bertjax.parallel import hosts
from bertjax.training.checkpoint_files import (
    ShapeAndType,
    by_name,
    checkpoint_errors,
    compare,
    shapes_by_name,
)
from bertjax.training.integrity.array_sums import SUMS, WORD
from bertjax.training.integrity.damage import DamagedCheckpointError, is_passing
from bertjax.training.integrity.parts import copies_of, on_host, sums_by_copy
from bertjax.training.integrity.reading_handler import ReadingHandler
from bertjax.training.integrity.record import STATE, SavedArray, read_saved_arrays
from bertjax.training.optimization.weight_average import EMA
from bertjax.training.step import TrainState

SavedArrays = Mapping[str, SavedArray]
EMA_PREFIX = f"opt_state/{EMA}/"
"""Beginning of the names of the arrays of the average."""


def restore_state(folder: epath.Path, target: TrainState) -> TrainState:
    """Return the state of a checkpoint folder, with the shardings of `target`.

    `target` is a tree of `jax.ShapeDtypeStruct`. Raises `UserError` if names, shapes or types
    differ from those of the target, and `DamagedCheckpointError` if a number is not as it was
    saved. All processes call this, and all raise the same error.
    """
    return _restored(
        folder, target, (), False, lambda _: TrainState(**_read_tree(folder, target.by_field()))
    )


def restore_params(
    folder: epath.Path, target: Any, ignored_groups: Sequence[str] = (), *, cast: bool = False
) -> Any:
    """Return the parameters of a checkpoint folder, with the shardings of `target`.

    `target` is a tree of `jax.ShapeDtypeStruct`. Each process reads only the parts of its own
    devices. With `cast` the values are converted to the dtype of the target when they have been
    compared, for example from float32 to bfloat16. All processes call this, and all raise the same
    error.

    Raises `UserError` if names, shapes or (without `cast`) dtypes differ from those of the target,
    or if the checkpoint has other tensors that are not in `ignored_groups` (for example `mlm`), and
    `DamagedCheckpointError` if a number is not as it was saved.
    """
    ignored = tuple(f"params/{group}/" for group in ignored_groups)
    item = {"params": target}

    def read(shapes: Mapping[str, ShapeAndType]) -> Any:
        as_saved = _with_saved_types(item, shapes) if cast else item
        # The optimizer's state, if there is one, is left out.
        return _read_tree(folder, as_saved, partial=True)

    params = _restored(folder, item, ignored, cast, read)["params"]
    return _cast(params, target) if cast else params


def restore_ema(folder: epath.Path, target: Any) -> Any:
    """Return the average of the weights in a checkpoint folder, with the shardings of `target`.

    It is that of a run with `train.ema_decay`. Raises the errors of `restore_params`.
    """
    item = {"opt_state": {EMA: target}}
    ignored = ("opt_state/",)
    tree = _restored(folder, item, ignored, False, lambda _: _read_tree(folder, item, partial=True))
    return tree["opt_state"][EMA]


def saved_shapes(folder: epath.Path) -> dict[str, ShapeAndType]:
    """Return shape and type of each tensor of a checkpoint by its name, `params/…/kernel`.

    Raises `DamagedCheckpointError`.
    """
    return _shapes(folder, read_saved_arrays(folder))


def _shapes(folder: epath.Path, saved: SavedArrays | None) -> dict[str, ShapeAndType]:
    """Return the shapes and types of `saved`, or those of Orbax where there are no digests."""
    if saved is not None:
        return {name: (entry.shape, jnp.dtype(entry.dtype)) for name, entry in saved.items()}
    # A checkpoint of an earlier version: Orbax opens each tensor.
    with checkpoint_errors(folder), _naming_unreadable(folder):
        tree = _metadata(folder)
    return shapes_by_name(tree)


def check_arrays(folder: epath.Path) -> bool:
    """Read all arrays of a checkpoint and compare them; return False if it has no digests.

    Raises `DamagedCheckpointError`. One process calls this.
    """
    saved = read_saved_arrays(folder)
    with checkpoint_errors(folder), _naming_unreadable(folder):
        arrays = _read_on_host(folder)
    if saved is None:
        return False
    if arrays.keys() != saved.keys():
        raise DamagedCheckpointError(folder, "other tensors than were saved")
    for name, array in arrays.items():
        found = SavedArray(array.shape, str(array.dtype), tuple(_sums_on_host(array)))
        if found != saved[name]:
            raise DamagedCheckpointError(folder, _other_values(name))
    return True


def saved_arrays(folder: epath.Path) -> SavedArrays:
    """Return shape, type and sums of each array of a checkpoint, by its name.

    Of a checkpoint without digests the arrays are read to compute them. Raises
    `DamagedCheckpointError`.
    """
    saved = read_saved_arrays(folder)
    if saved is not None:
        return saved
    with checkpoint_errors(folder), _naming_unreadable(folder):
        arrays = _read_on_host(folder)
    return {
        name: SavedArray(array.shape, str(array.dtype), tuple(_sums_on_host(array)))
        for name, array in arrays.items()
    }


def _restored(
    folder: epath.Path,
    target: Any,
    ignored: tuple[str, ...],
    cast: bool,
    read: Callable[[Mapping[str, ShapeAndType]], Any],
) -> Any:
    """Return what `read` returns, after names, shapes, types and numbers were compared.

    `read` is given the shapes and types of the saved tensors.
    """
    tree, damage = None, ""
    saved: SavedArrays | None = None
    with checkpoint_errors(folder):
        try:
            saved = read_saved_arrays(folder)
            shapes = _shapes(folder, saved)
            compare(folder, shapes, target, ignored, cast=cast)
            tree = _read(folder, lambda: read(shapes))
        except DamagedCheckpointError as error:
            damage = error.found
    damage = _agreed_damage(tree, damage, saved)
    if damage:
        raise DamagedCheckpointError(folder, damage)
    return tree


def _read(folder: epath.Path, read: Callable[[], Any]) -> Any:
    """Return what `read` returns; raise `DamagedCheckpointError` where the files are damaged."""
    try:
        return read()
    # Orbax and TensorStore name what is wrong with a file by errors of many types.
    except Exception as error:
        if not is_passing(error):
            # Where the numbers are as they were saved, the error has another reason, such as
            # devices on which they do not fit.
            check_arrays(folder)
        raise


def _read_tree(folder: epath.Path, target: Any, *, partial: bool = False) -> Any:
    args = ocp.args.PyTreeRestore(
        item=target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=partial,
    )
    # Without a checkpointer, for which each process would wait where another one fails.
    return ReadingHandler().restore(folder / STATE, args=args)


@contextmanager
def _naming_unreadable(folder: epath.Path) -> Iterator[None]:
    """Turn errors of a block that reads a checkpoint's files, and does nothing else."""
    try:
        yield
    except Exception as error:
        if is_passing(error):
            raise
        found = f"files that cannot be read ({one_line(error, 160)})"
        raise DamagedCheckpointError(folder, found) from error


def _agreed_damage(tree: Any, damage: str, saved: SavedArrays | None) -> str:
    """Return on every process what is damaged, or an empty text.

    The processes tell the first one what they hold, and it compares.
    """
    if damage or saved is None:
        named, own = {}, json.dumps({"damage": damage})
    else:
        named = by_name(tree)
        own = json.dumps({"sums": sums_by_copy(list(named.values()))})
    said = [json.loads(text) for text in hosts.to_first(own)]
    if hosts.is_first():
        damage = next((one["damage"] for one in said if one.get("damage")), "")
        if not damage and saved is not None:
            damage = _first_difference(named, [one["sums"] for one in said], saved)
    return hosts.from_first(damage)


def _first_difference(
    arrays: Mapping[str, Any], sums: Sequence[Sequence[Mapping[str, Any]]], saved: SavedArrays
) -> str:
    """Return the name of the first array whose sums are not those that were saved, or nothing.

    `sums` has for each process, for each array, the sums by the number of the copy (as text).
    """
    for number, (name, array) in enumerate(arrays.items()):
        for copy in range(copies_of(array)):
            total = np.zeros(SUMS, WORD)
            for of_process in sums:
                total += np.array(of_process[number].get(str(copy), [0] * SUMS), WORD)
            if tuple(total.tolist()) != saved[name].sums:
                return _other_values(name)
    return ""


def _other_values(name: str) -> str:
    return f"other values in {name} than were saved"


def _with_saved_types(target: Any, saved: Mapping[str, ShapeAndType]) -> Any:
    types = [saved[name][1] for name in by_name(target)]
    leaves, structure = jax.tree.flatten(target)
    as_saved = [
        jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)
        for leaf, dtype in zip(leaves, types, strict=True)
    ]
    return jax.tree.unflatten(structure, as_saved)


def _cast(tree: Any, target: Any) -> Any:
    """Return the arrays with the dtypes of `target`, converted on the host."""
    leaves, structure = jax.tree.flatten(tree)
    targets = jax.tree.leaves(target)
    del tree
    for number, wanted in enumerate(targets):
        array = leaves[number]
        pieces = [
            jax.device_put(on_host(shard.data).astype(wanted.dtype), shard.device)
            for shard in array.addressable_shards
        ]
        # In the place of the array that was read, whose memory is free from here on.
        leaves[number] = jax.make_array_from_single_device_arrays(
            array.shape, array.sharding, pieces
        )
    return jax.tree.unflatten(structure, leaves)


def _metadata(folder: epath.Path) -> Any:
    """Return Orbax's tree of what it knows of the arrays."""
    metadata = ReadingHandler().metadata(folder / STATE)
    if metadata is None or metadata.tree is None:
        raise DamagedCheckpointError(folder, "no readable list of tensors")
    return metadata.tree


def _read_on_host(folder: epath.Path) -> dict[str, np.ndarray]:
    tree = _metadata(folder)
    as_numbers = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    args = ocp.args.PyTreeRestore(restore_args=as_numbers)
    arrays = by_name(ReadingHandler().restore(folder / STATE, args=args))
    return {name: np.asarray(array) for name, array in arrays.items()}


def _sums_on_host(array: np.ndarray) -> list[int]:
    return sums_by_copy([array])[0][0]
