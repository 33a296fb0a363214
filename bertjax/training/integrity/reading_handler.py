"""Reading of a state by Orbax, without noise where a file is damaged."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class ReadingHandler(ocp.PyTreeCheckpointHandler):
    """Orbax's handler of trees, for reading alone."""

    def __init__(self) -> None:
        registry = ocp.type_handlers.create_type_handler_registry(
            (int, _ScalarHandler()),
            (float, _ScalarHandler()),
            (np.number, _ScalarHandler()),
            (np.ndarray, _NumpyHandler()),
            (jax.Array, _ArrayHandler()),
        )
        super().__init__(type_handler_registry=registry)


class _WaitsForAll(ocp.type_handlers.TypeHandler):
    """Handlers that end when all their arrays are read, also where one of them has failed.

    Orbax ends its event loop at once: then every array that is still being read prints a traceback.
    """

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> Any:
        return await _when_all_have_ended(
            lambda: super(_WaitsForAll, self).deserialize(infos, args)
        )

    async def metadata(self, infos: Sequence[Any]) -> Any:
        return await _when_all_have_ended(lambda: super(_WaitsForAll, self).metadata(infos))


async def _when_all_have_ended(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run `work`; where it fails, wait for the tasks that it has begun before raising."""
    before = asyncio.all_tasks()
    try:
        return await work()
    except Exception:
        begun = asyncio.all_tasks() - before
        await asyncio.gather(*begun, return_exceptions=True)
        raise


class _ArrayHandler(_WaitsForAll, ocp.type_handlers.ArrayHandler):
    pass


class _NumpyHandler(_WaitsForAll, ocp.type_handlers.NumpyHandler):
    pass


class _ScalarHandler(_WaitsForAll, ocp.type_handlers.ScalarHandler):
    pass
