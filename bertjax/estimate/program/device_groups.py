"""Which devices a collective joins, and along which axes of the mesh they lie."""

import math
import re
from collections.abc import Mapping

import numpy as np

_FORMS = {
    "mesh": re.compile(
        r"mesh\[(?P<axes>[^\]]*)\](?:, device_ids=\((?P<ids>.*?)\))? \{(?P<joined>[^}]*)\}"
    ),
    "range": re.compile(r"\[(?P<shape>[\d,]*)\]<=(?P<numbers>\[[\d,]*\](?:T\([\d,]*\))?)"),
    "lists": re.compile(r"\{(?P<lists>(?:\{[\d,]*\},?)*)\}"),
}


def parse_groups(attributes: str, devices: int) -> np.ndarray:
    """The groups that `replica_groups=` among a collective's attributes names, int `[groups,
    devices in each]`.

    Understood are the three forms of XLA: lists `{{0,1},{2,3}}`, a permuted range
    `[2,2]<=[2,2]T(1,0)`, and axes of a mesh `mesh['a'=2,'b'=2] {'b'}`, of which also parts of axes
    `'a':(2)2` and permuted devices `mesh[…], device_ids=([2,2]T(1,0)) {…}`. No groups are all
    devices. Raises `ValueError` for another form.
    """
    text = attributes.partition("replica_groups=")[2]
    found = {name: match for name, form in _FORMS.items() if (match := form.match(text))}
    if "mesh" in found:
        return _mesh_groups(found["mesh"])
    if "range" in found:
        return _range(found["range"]["numbers"]).reshape(_numbers(found["range"]["shape"]))
    if text and "lists" not in found:
        raise ValueError(f"replica groups of an unknown form: {text[:100]}")
    lists = [
        _numbers(group)
        for group in re.findall(r"\{([\d,]+)\}", found["lists"]["lists"] if text else "")
    ]
    return np.array(lists) if lists else np.arange(devices)[None, :]


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def _range(text: str) -> np.ndarray:
    """`[2,4]T(1,0)`: the numbers from 0 in that shape, transposed, flat."""
    shape, _, order = text.partition("T")
    sizes = _numbers(shape)
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(_numbers(order) or None).reshape(-1)


def _mesh_groups(found: re.Match[str]) -> np.ndarray:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", found["axes"])}
    numbers = _range(found["ids"]) if found["ids"] else np.arange(math.prod(sizes.values()))
    joined = re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", found["joined"])
    # Each axis as (before, joined, after): an axis that is joined whole is (1, size, 1).
    parts = {name: (size, 1, 1) for name, size in sizes.items()}
    for name, before, size in joined:
        first, middle = (int(before), int(size)) if size else (1, sizes[name])
        parts[name] = (first, middle, sizes[name] // (first * middle))
    cut = numbers.reshape([n for part in parts.values() for n in part])
    inside = [3 * list(parts).index(name) + 1 for name, _, _ in joined]
    outside = [axis for axis in range(cut.ndim) if axis not in inside]
    width = math.prod(cut.shape[axis] for axis in inside)
    return cut.transpose(outside + inside).reshape(-1, width)


def axes_of(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes, named with their sizes in the mesh's order, along which the groups' devices
    lie.

    A device's number is its place in the mesh, row by row. Where the groups are not whole axes, the
    names are those that differ within a group, and the last is `part`.
    """
    places = np.unravel_index(groups, tuple(mesh.values()))
    varied = tuple(
        name for name, place in zip(mesh, places, strict=True) if (place != place[:, :1]).any()
    )
    whole = math.prod(mesh[name] for name in varied) == groups.shape[1]
    return varied if whole else (*varied, "part")
