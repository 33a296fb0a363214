"""Local attention: blocks of queries with the keys around them, so its cost is linear in length.

A block has W queries, where W is half of the window. They see keys of their own block and of its
two neighbours.
"""

from typing import NamedTuple

import numpy as np

from bertjax.interop.programs.onnx.embeddings import Row
from bertjax.interop.programs.onnx.graph import Graph


class Windows(NamedTuple):
    """What the local layers share; a row has n blocks."""

    mask: str
    """The keys that a query sees, [b, 1, n, W, 3 W]."""
    query_pads: str
    """Sizes for `Pad` that fill the last block, int64 [8]."""
    key_pads: str
    """The same with one more block at each end."""
    length: str
    """The length l of the rows, int64 [1]."""


def windows(graph: Graph, row: Row, seen: str) -> Windows:
    """Add what is the same in all local layers; `seen` is true for keys that are no padding."""
    reach, name = graph.config.local_attention // 2, "windows"
    one_block = graph.integers(f"{name}/reach", [reach])
    # `Mod` of integers has the sign of the divisor: the ids that the last block lacks.
    negative = graph.op("Neg", f"{name}/negative", row.length)
    missing = graph.op("Mod", f"{name}/missing", negative, one_block)
    after = graph.op("Add", f"{name}/after", missing, one_block)
    zero = graph.integers(f"{name}/zero", [0])
    # All sizes before the axes, then all sizes after them.
    query_pads = _pads(graph, f"{name}/query_pads", [zero] * 6 + [missing, zero])
    key_pads = _pads(
        graph, f"{name}/key_pads", [zero, zero, one_block, zero, zero, zero, after, zero]
    )
    seen_pads = _pads(graph, f"{name}/seen_pads", [zero, one_block, zero, after])
    padded = graph.op("Pad", f"{name}/padded", seen, seen_pads)
    keys = _with_neighbours(graph, f"{name}/keys", padded, 1, [0, -1, reach])
    axes = graph.integers(f"{name}/axes", [1, 3])
    keys = graph.op("Unsqueeze", f"{name}/seen", keys, axes)
    distances = np.arange(3 * reach)[None, :] - reach - np.arange(reach)[:, None]
    near = graph.constant(f"{name}/near", np.abs(distances) <= reach, np.bool_)
    mask = graph.op("And", f"{name}/mask", keys, near)
    return Windows(mask, query_pads, key_pads, row.length)


def _pads(graph: Graph, name: str, sizes: list[str]) -> str:
    return graph.op("Concat", name, *sizes, axis=0)


def query_blocks(graph: Graph, windows: Windows, query: str) -> str:
    """Add the blocks of queries, from [b, H, l, K] to [b, H, n, W, K]."""
    padded = graph.op("Pad", f"{query}/padded", query, windows.query_pads)
    shape = graph.integers("windows/shape/5", _block_shape(graph))
    return graph.op("Reshape", f"{query}/blocks", padded, shape)


def key_blocks(graph: Graph, windows: Windows, x: str) -> str:
    """Add the keys or values of each block and of its neighbours, [b, H, n, 3 W, K]."""
    padded = graph.op("Pad", f"{x}/padded", x, windows.key_pads)
    return _with_neighbours(graph, f"{x}/blocks", padded, 2, _block_shape(graph))


def _with_neighbours(graph: Graph, name: str, x: str, axis: int, shape: list[int]) -> str:
    """Add each block between its neighbours; `x` has one block more at each end of `axis`.

    `shape` is the shape of the blocks apart; 0 keeps the size of an axis.
    """
    reach = graph.config.local_attention // 2
    apart = graph.integers(f"windows/shape/{len(shape)}", shape)
    axes = graph.integers(f"windows/axis/{axis}", [axis])
    # The last end is beyond any row.
    bounds = ((0, -2 * reach), (reach, -reach), (2 * reach, np.iinfo(np.int32).max))
    blocks = []
    for which, (start, end) in zip(("before", "own", "after"), bounds, strict=True):
        starts = graph.integers(f"windows/{which}/start", [start])
        ends = graph.integers(f"windows/{which}/end", [end])
        part = graph.op("Slice", f"{name}/{which}", x, starts, ends, axes)
        blocks.append(graph.op("Reshape", f"{name}/{which}/apart", part, apart))
    return graph.op("Concat", name, *blocks, axis=axis + 1)


def joined_blocks(graph: Graph, windows: Windows, x: str) -> str:
    """Add the rows of blocks [b, H, n, W, K] without what was added at their end, [b, H, l, K]."""
    shape = graph.integers("windows/joined", [0, 0, -1, graph.config.head_width])
    joined = graph.op("Reshape", f"{x}/joined", x, shape)
    zero = graph.integers("windows/zero", [0])
    axes = graph.integers("windows/axis/2", [2])
    return graph.op("Slice", f"{x}/cut", joined, zero, windows.length, axes)


def _block_shape(graph: Graph) -> list[int]:
    """Return [b, H, n, W, K] as `Reshape` takes it."""
    config = graph.config
    return [0, 0, -1, config.local_attention // 2, config.head_width]
