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
"""Stands last among the names of the axes if the groups are not whole axes."""


def parse_groups(attributes: str, devices: int) -> np.ndarray:
    """Read `replica_groups=` in a collective's attributes, int `[groups, devices of a group]`.

    XLA writes groups in three forms: lists `{{0,1},{2,3}}`, a permuted range
    `[2,2]<=[2,2]T(1,0)`, and axes of a mesh `mesh['a'=2,'b'=2] {'b'}`. The third form may also have
    parts of axes, `'a':(2)2`, and permuted devices, `mesh[…], device_ids=([2,2]T(1,0)) {…}`. If the
    attributes have no groups, all devices form one group. Raises `ValueError` for any other form.
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
        # A guess would give wrong axes and bytes without any warning.
        raise ValueError(f"replica groups of an unknown form: {text[:100]}")
    groups = re.findall(r"\{([\d,]+)\}", lists["lists"]) if lists else []
    if not groups:
        return np.arange(devices)[None, :]
    return np.array([_numbers(group) for group in groups])


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def _permuted_range(text: str) -> np.ndarray:
    """Return the device numbers that a text such as `[2,4]T(1,0)` means.

    The numbers from 0 on are put into the shape [2, 4], transposed by (1, 0) and flattened. Without
    `T(...)` they keep their order.
    """
    shape, _, permutation = text.partition("T")
    sizes = _numbers(shape)
    axes = _numbers(permutation) or range(len(sizes))
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(axes).reshape(-1)


def _mesh_groups(match: re.Match[str]) -> np.ndarray:
    """Return the groups: the devices of a group differ only along the joined axes of a mesh."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", match["axes"])}
    device_count = math.prod(sizes.values())
    numbers = _permuted_range(match["ids"]) if match["ids"] else np.arange(device_count)
    joined = re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", match["joined"])
    # Each axis is divided into three, (before, joined, after). They are (1, size, 1) if the whole
    # axis is joined, and (size, 1, 1) if the axis is not joined.
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

    `mesh` has the axes' sizes by name. A device's number is its position in the mesh, in which the
    last axis varies fastest. If the groups are not whole axes, the names are those of the axes
    along which the devices of a group differ, and `PART` follows them.
    """
    coordinates = np.unravel_index(groups, tuple(mesh.values()))
    varied = []
    for name, along_axis in zip(mesh, coordinates, strict=True):
        if (along_axis != along_axis[:, :1]).any():
            varied.append(name)
    is_whole = math.prod(mesh[name] for name in varied) == groups.shape[1]
    return tuple(varied) if is_whole else (*varied, PART)
