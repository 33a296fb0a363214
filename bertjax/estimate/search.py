"""The largest batch that fits, and the mesh and remat policy that take least time."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

from bertjax.config import Config, MeshConfig, ModelConfig, Remat
from bertjax.errors import UserError
from bertjax.estimate.hardware.slices import Slice
from bertjax.model import functional
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from bertjax.training.step import check_batch

FINENESS = 16  # the largest batch is found to within this part of it
SHORTEST = 128  # ids of a row that a device keeps at least where rows are cut
WIDEST = 8  # devices that share a matrix product or a row at most: a host's


@dataclass(frozen=True)
class Bounds:
    """What a bisection found."""

    fits: int
    """The largest that fitted, 0 where none did."""
    refused: int | None
    """The smallest that did not, None where all that were tried did."""


def boundary(
    fits: Callable[[int], bool], start: int, most: int, fineness: int = FINENESS
) -> Bounds:
    """Where `fits` turns from true to false among 1..`most`, `fits` being asked as seldom as can
    be.

    Doubles or halves from `start`, then bisects until the two ends are no more than a `fineness`th
    apart (0: next to each other).
    """
    low, high = 0, None
    tried = min(max(start, 1), most)
    while True:
        if fits(tried):
            low = tried
            if tried == most or high is not None:
                break
            tried = min(2 * tried, most)
        else:
            high = tried
            if tried == 1 or low:
                break
            tried //= 2
    while high is not None and high - low > max(1, low // fineness if fineness else 1):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return Bounds(low, high)


def batch_unit(config: Config, slice_: Slice) -> int:
    """The rows that every batch must be a multiple of on this mesh."""
    return (
        rules.batch_parts(make_mesh(config.mesh, slice_.devices))
        * config.train.gradient_accumulation_steps
    )


def with_batch(config: Config, batch_size: int) -> Config:
    """The configuration with another batch."""
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, batch_size=batch_size)
    )


def candidates(config: Config, slice_: Slice) -> Iterator[Config]:
    """The configuration on every sensible mesh with every remat policy, the plainest first.

    Slices share the batch only. Of a slice's devices at most a host's share a matrix product or a
    row. Meshes that do not divide the model or the batch are left out.
    """
    meshes = [mesh for mesh in _meshes(slice_) if _divides(config, slice_, mesh)]
    policies = get_args(Remat)
    ranked = sorted(
        itertools.product(range(len(meshes)), range(len(policies))),
        key=lambda pair: (sum(pair), pair),
    )
    for mesh, policy in ranked:
        model = dataclasses.replace(config.model, remat=policies[policy])
        yield dataclasses.replace(config, mesh=meshes[mesh], model=model)


def _meshes(slice_: Slice) -> list[MeshConfig]:
    """Powers of two for all axes but `data`, which takes what is left; fewest ways of cutting
    first.
    """
    devices = len(slice_.devices) // slice_.slices
    powers = [2**n for n in range(int(math.log2(devices)) + 1)]
    shared = [size for size in powers if size <= WIDEST]
    found = []
    for fsdp, tensor, sequence in itertools.product(powers, shared, shared):
        data, left = divmod(devices, fsdp * tensor * sequence)
        if data and not left:
            found.append(
                MeshConfig(
                    replica=slice_.slices, data=data, fsdp=fsdp, tensor=tensor, sequence=sequence
                )
            )
    return sorted(found, key=_cuts)


def _cuts(mesh: MeshConfig) -> tuple[int, bool, bool, int]:
    return mesh.tensor * mesh.sequence, mesh.fsdp > 1, mesh.data > 1 and mesh.fsdp > 1, mesh.fsdp


def _divides(config: Config, slice_: Slice, mesh: MeshConfig) -> bool:
    length = config.data.max_seq_length
    if mesh.sequence > 1 and (length % mesh.sequence or length // mesh.sequence < SHORTEST):
        return False
    try:
        dataclasses.replace(config, mesh=mesh)  # our kernels take no rows that are cut
        devices = make_mesh(mesh, slice_.devices)
        rules.check_divides(devices, *_parameters(config.model))
        check_batch(config, devices)
    except UserError:
        return False
    return True


@lru_cache(maxsize=1)
def _parameters(model: ModelConfig) -> tuple[Any, Any]:
    return functional.shapes(model), functional.logical_axes(model)
