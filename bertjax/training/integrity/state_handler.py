"""Saving of a state by Orbax, with sums of its arrays beside them.

Orbax copies the arrays to the host, returns to the training loop, and writes the copies in the
background. The sums are computed there too, from the same copies. Each process writes those of
what it saves into `state/digests/`. When all have ended, the first process adds them up and writes
`digests.json`; only then does the checkpoint get its final name.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

# Where Orbax copies arrays to the host: it gives the copies to nobody by a public name.
from orbax.checkpoint._src.serialization import replica_slices

from bertjax.training.integrity.array_sums import SUMS, WORD
from bertjax.training.integrity.parts import Part, on_host, starts_of, sums_of
from bertjax.training.integrity.record import SavedArray, write_digests

PARTS = "digests"
"""Folder with a file of each process, while a checkpoint is written."""

_copies: ContextVar[list[Any] | None] = ContextVar("copies", default=None)
_transfer = replica_slices.transfer_arrays_to_host


def _noting_copies(*args: Any, **options: Any) -> Sequence[Any]:
    """Copy arrays to the host as Orbax does, and note the copies for `_noted_copies`."""
    slices = _transfer(*args, **options)
    noted = _copies.get()
    if noted is not None:
        noted.extend(slices)
    return slices


# Else every array would be copied from the devices a second time while training waits.
replica_slices.transfer_arrays_to_host = _noting_copies


@contextmanager
def _noted_copies() -> Iterator[list[Any]]:
    """Collect the copies that Orbax makes in the block, one entry for each array."""
    noted: list[Any] = []
    token = _copies.set(noted)
    try:
        yield noted
    finally:
        _copies.reset(token)


class StateHandler(ocp.PyTreeCheckpointHandler):
    """Orbax's handler of trees, which adds `digests.json`.

    Each save is made within `saving`.
    """

    def __init__(self) -> None:
        arrays = _ArrayHandler()
        registry = ocp.type_handlers.create_type_handler_registry(
            (int, _ScalarHandler()),
            (float, _ScalarHandler()),
            (np.number, _ScalarHandler()),
            (np.ndarray, _NumpyHandler()),
            (jax.Array, arrays),
        )
        super().__init__(type_handler_registry=registry)
        self._arrays = arrays

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Begin to compute sums at the end of the block, in which training waits for the save.

        Before, they would take processor time from what training waits for.
        """
        # One for each save: it may begin while the one before it is still being written.
        self._arrays.has_returned = threading.Event()
        try:
            yield
        finally:
            self._arrays.has_returned.set()

    def finalize(self, directory: epath.Path) -> None:
        """Finish a checkpoint; Orbax calls it on the first process, when all have written."""
        super().finalize(directory)
        folder = directory / PARTS
        write_digests(directory, _added_up(folder))
        folder.rmtree()


def _added_up(folder: epath.Path) -> dict[str, SavedArray]:
    """Return the sums of whole arrays, from the files of all processes."""
    sums: dict[str, np.ndarray] = {}
    facts: dict[str, tuple[tuple[int, ...], str]] = {}
    for path in folder.iterdir():
        for name, entry in json.loads(path.read_text()).items():
            facts[name] = tuple(entry["shape"]), entry["dtype"]
            sums[name] = sums.get(name, np.zeros(SUMS, WORD)) + np.array(entry["sums"], WORD)
    return {
        name: SavedArray(*facts[name], tuple(int(value) for value in total))
        for name, total in sums.items()
    }


class _ArrayHandler(ocp.type_handlers.ArrayHandler):
    """Orbax's handler of JAX arrays, which also writes the sums of what this process saves."""

    has_returned: threading.Event
    """Set when the present save no longer holds up training."""

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> Any:
        with _noted_copies() as copies:
            futures = await super().serialize(values, infos, args)
        # Where another version of Orbax copies in another way, they are copied here once more.
        parts = [_saved_parts(*pair) for pair in zip(values, copies or values, strict=True)]

        has_returned = self.has_returned

        def sums() -> list[np.ndarray]:
            has_returned.wait()
            return [sums_of(found) for found in parts]

        return [*futures, _writing("arrays", values, infos, sums)]


def _saved_parts(array: jax.Array, copy: Any) -> list[Part]:
    """Return the parts of an array that this process saves; `copy` has them on the host."""
    if copy is array:
        shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
        return [Part(on_host(shard.data), starts_of(shard.index)) for shard in shards]
    return [Part(piece.unsliced_data, starts_of(piece.index)) for piece in copy.replica_slices]


class _SumsOfValues(ocp.type_handlers.NumpyHandler):
    """Orbax's handler of NumPy arrays, which also writes their sums.

    The first process saves these arrays alone. Their sums are computed at once: the caller may
    change them later. No state of a training has any.
    """

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> Any:
        futures = await super().serialize(values, infos, args)
        if jax.process_index() != 0:
            return futures
        arrays = [np.asarray(value) for value in values]
        sums = [sums_of([Part(array, (0,) * array.ndim)]) for array in arrays]
        return [*futures, _writing(self.typestr(), arrays, infos, lambda: sums)]


class _NumpyHandler(_SumsOfValues):
    pass


class _ScalarHandler(_SumsOfValues, ocp.type_handlers.ScalarHandler):
    pass


def _writing(
    kind: str, values: Sequence[Any], infos: Sequence[Any], sums: Callable[[], list[np.ndarray]]
) -> ocp.future.Future:
    """Return the computing and writing of sums, which is under way in a thread of its own."""
    # Taken now: the arrays themselves may be given away to the next step.
    facts = [(tuple(value.shape), str(value.dtype)) for value in values]

    async def write() -> None:
        entries = {}
        for value, info, found in zip(facts, infos, sums(), strict=True):
            await info.await_path_creation()
            name = jax.tree_util.keystr(info.keypath, simple=True, separator="/")
            entries[name] = SavedArray(*value, tuple(found.tolist()))._asdict()
        folder = infos[0].parent_dir / PARTS
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{kind}.{jax.process_index()}").write_text(json.dumps(entries))

    return ocp.future.CommitFutureAwaitingContractedSignals(write(), name="digests")
