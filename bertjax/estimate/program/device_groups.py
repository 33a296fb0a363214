"""Groups of devices that a collective joins, and the mesh axes along which they lie."""

import math
import re
from collections.abc import Mapping

import numpy as np

# The forms in which XLA writes groups; see `parse_groups`.
_MESH = re.compile(
    r"mesh\[(?P<axes>[^\]]*)\](?:, device_ids=\((?P<ids>.*?)\))? \{(?P<joined>[^}]*)\}"
)
_RANGE = re.compile(r"\[(?P<shape>[\d,]*)\]<=(?P<numbers>\[[\d,]*\](?:T\([\d,]*\))?)")
_LISTS = re.compile(r"\{(?P<lists>(?:\{[\d,]*\},?)*)\}")
PART = "part"
"""The last of the axes' names where groups are not whole axes."""


def parse_groups(attributes: str, devices: int) -> np.ndarray:
    """Read `replica_groups=` among a collective's attributes, int `[groups, devices in each]`.

    XLA has three forms: lists `{{0,1},{2,3}}`, a permuted range `[2,2]<=[2,2]T(1,0)`, and axes of a
    mesh `mesh['a'=2,'b'=2] {'b'}`, of which also parts of axes `'a':(2)2` and permuted devices
    `mesh[…], device_ids=([2,2]T(1,0)) {…}`. Without groups all devices are one. Raises `ValueError`
    for another form.
    """
    _, _, text = attributes.partition("replica_groups=")
    mesh = _MESH.match(text)
    if mesh:
        return _mesh_groups(mesh)
    permuted = _RANGE.match(text)
    if permuted:
        return _permuted_range(permuted["numbers"]).reshape(_numbers(permuted["shape"]))
    lists = _LISTS.match(text)
    if text and not lists:
        # A guess would give wrong axes and bytes without a word.
        raise ValueError(f"replica groups of an unknown form: {text[:100]}")
    groups = re.findall(r"\{([\d,]+)\}", lists["lists"]) if lists else []
    if not groups:
        return np.arange(devices)[None, :]
    return np.array([_numbers(group) for group in groups])


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def _permuted_range(text: str) -> np.ndarray:
    """Return the numbers that `[2,4]T(1,0)` means: from 0 in that shape, transposed, flat.

    Without `T(...)` the numbers keep their order.
    """
    shape, _, permutation = text.partition("T")
    sizes = _numbers(shape)
    axes = _numbers(permutation) or range(len(sizes))
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(axes).reshape(-1)


def _mesh_groups(match: re.Match[str]) -> np.ndarray:
    """Return the groups of the devices that differ in the joined axes of a mesh only."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", match["axes"])}
    device_count = math.prod(sizes.values())
    numbers = _permuted_range(match["ids"]) if match["ids"] else np.arange(device_count)
    joined = re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", match["joined"])
    # Each axis as three: (before, joined, after) of a part, (1, size, 1) of a whole joined axis.
    parts = {name: (size, 1, 1) for name, size in sizes.items()}
    for name, before, size in joined:
        first, middle = (int(before), int(size)) if size else (1, sizes[name])
        parts[name] = (first, middle, sizes[name] // (first * middle))
    shape: list[int] = []
    for part in parts.values():
        shape += part
    order = list(parts)
    inside = [3 * order.index(name) + 1 for name, _, _ in joined]
    outside = [axis for axis in range(len(shape)) if axis not in inside]
    group_size = math.prod(shape[axis] for axis in inside)
    return numbers.reshape(shape).transpose(outside + inside).reshape(-1, group_size)


def axes_of(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """Return the names of the mesh axes along which the groups' devices lie, in the mesh's order.

    `mesh` has the axes' sizes by name. A device's number is its position in the mesh, row by row.
    Where the groups are not whole axes, the names are those that differ within a group, and `PART`
    is the last.
    """
    coordinates = np.unravel_index(groups, tuple(mesh.values()))
    varied = []
    for name, along_axis in zip(mesh, coordinates, strict=True):
        if (along_axis != along_axis[:, :1]).any():
            varied.append(name)
    is_whole = math.prod(mesh[name] for name in varied) == groups.shape[1]
    return tuple(varied) if is_whole else (*varied, PART)
