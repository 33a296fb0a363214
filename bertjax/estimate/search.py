"""Search for the largest batch that fits, and for the mesh and remat policy of the least time."""

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

# Coarse, since each try is a compile: so there are a dozen at most.
PRECISION = 16
"""The search stops when the largest batch is known to within 1/16 of it."""
MIN_LOCAL_LENGTH = 128
"""If sequences are sharded, each device keeps this number of positions or more."""
MAX_SHARED = 8
"""The largest number of devices that share a matrix product or a sequence: those of one host."""


@dataclass(frozen=True)
class Bounds:
    """The result of a bisection."""

    fits: int
    """The largest value that fitted; 0 if none fitted."""
    refused: int | None
    """The smallest value that did not fit; None if every tried value fitted."""


def find_boundary(
    fits: Callable[[int], bool], start: int, largest: int, precision: int = PRECISION
) -> Bounds:
    """Find where `fits` turns from true to false among 1..`largest`, with few calls of it.

    Doubles or halves from `start` until both sides are known, then bisects until they are no more
    than one part in `precision` apart (0: until they are neighbors). Each call is a compile.
    """
    # The largest value known to fit (0: none yet), and the smallest known not to (None: none yet).
    low, high = 0, None
    tried = min(max(start, 1), largest)
    while True:
        if fits(tried):
            low = tried
            is_last = tried == largest
            if is_last or high is not None:
                break
            tried = min(2 * tried, largest)
        else:
            high = tried
            is_last = tried == 1
            if is_last or low > 0:
                break
            tried //= 2
    while high is not None:
        close_enough = 1
        if precision > 0:
            close_enough = max(1, low // precision)
        if high - low <= close_enough:
            break
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return Bounds(low, high)


def batch_unit(config: Config, slice_: Slice) -> int:
    """Return the number of rows that every batch must be a multiple of on this mesh."""
    parts = rules.batch_parts(make_mesh(config.mesh, slice_.devices))
    return parts * config.train.gradient_accumulation_steps


def with_batch(config: Config, batch_size: int) -> Config:
    """Return the configuration with another global batch size."""
    train = dataclasses.replace(config.train, batch_size=batch_size)
    return dataclasses.replace(config, train=train)


def candidates(config: Config, slice_: Slice) -> Iterator[Config]:
    """Yield the configuration on every sensible mesh with every remat policy, the plainest first.

    Between slices only the batch is divided. Within a slice, a matrix product or a sequence is
    divided among `MAX_SHARED` devices or fewer. Meshes that do not divide the model or the batch
    are left out.
    """
    meshes = [mesh for mesh in _meshes(slice_) if _divides(config, slice_, mesh)]
    policies = get_args(Remat)
    # Both lists begin with the plainest, and a pair of ranks with a small sum is plain in both. So
    # pairs are sorted by that sum, and pairs of the same sum by the rank of the mesh.
    pairs = itertools.product(range(len(meshes)), range(len(policies)))
    for mesh_rank, policy_rank in sorted(pairs, key=lambda ranks: (sum(ranks), ranks)):
        model = dataclasses.replace(config.model, remat=policies[policy_rank])
        yield dataclasses.replace(config, mesh=meshes[mesh_rank], model=model)


def _meshes(slice_: Slice) -> list[MeshConfig]:
    """List meshes with powers of two for all axes but `data`, which takes what is left.

    Those that shard in the fewest ways come first.
    """
    devices = len(slice_.devices) // slice_.slices
    powers = [2**n for n in range(int(math.log2(devices)) + 1)]
    shared = [size for size in powers if size <= MAX_SHARED]
    meshes = []
    for fsdp, tensor, sequence in itertools.product(powers, shared, shared):
        data, left = divmod(devices, fsdp * tensor * sequence)
        if data == 0 or left > 0:
            continue
        mesh = MeshConfig(
            replica=slice_.slices, data=data, fsdp=fsdp, tensor=tensor, sequence=sequence
        )
        meshes.append(mesh)
    return sorted(meshes, key=_complexity)


def _complexity(mesh: MeshConfig) -> tuple[int, bool, bool, int]:
    """Return the sort key of a mesh, smaller for plainer ones.

    First the number of devices that share a matrix product or a sequence; then whether parameters
    are sharded, whether they are sharded among some of the devices only, and among how many.
    """
    is_sharded = mesh.fsdp > 1
    is_partly_sharded = is_sharded and mesh.data > 1
    return mesh.tensor * mesh.sequence, is_sharded, is_partly_sharded, mesh.fsdp


def _divides(config: Config, slice_: Slice, mesh: MeshConfig) -> bool:
    """Tell whether the mesh divides the model, the sequences and the batch."""
    length = config.data.max_seq_length
    if mesh.sequence > 1:
        local_length, left = divmod(length, mesh.sequence)
        if left or local_length < MIN_LOCAL_LENGTH:
            return False
    try:
        # Made for its check alone, which refuses sharded sequences for the Pallas kernels.
        dataclasses.replace(config, mesh=mesh)
        device_mesh = make_mesh(mesh, slice_.devices)
        rules.check_divides(device_mesh, *_parameters(config.model))
        check_batch(config, device_mesh)
    except UserError:
        return False
    return True


# All meshes of a search have the same model, which is traced once.
@lru_cache(maxsize=1)
def _parameters(model: ModelConfig) -> tuple[Any, Any]:
    """Return the shapes and the logical axes of a model's parameters."""
    return functional.shapes(model), functional.logical_axes(model)
