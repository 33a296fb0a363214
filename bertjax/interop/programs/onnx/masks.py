"""Which keys a query sees: those that are no padding, and in local layers those in its window."""

from typing import NamedTuple

import numpy as np

from bertjax.interop.programs.onnx.embeddings import Row
from bertjax.interop.programs.onnx.graph import Graph


class Masks(NamedTuple):
    """Boolean tensors that are true where a query sees a key."""

    in_global: str
    """[b, 1, 1, l]: of all heads and all queries."""
    in_local: str
    """[b, 1, l, l]; empty if no layer is local."""


def masks(graph: Graph, row: Row) -> Masks:
    """Add the masks of global and of local layers."""
    zero = graph.constant("mask/zero", 0, np.int32)
    seen = graph.op("Greater", "mask/seen", "input_mask", zero)
    if graph.config.positions != "learned":
        seen = graph.op("And", "mask/allowed", seen, _allowed(graph, row))
    # [b, l] to [b, 1, 1, l], for all heads and all queries.
    in_global = graph.op("Unsqueeze", "mask", seen, graph.integers("mask/axes", [1, 2]))
    if all(graph.config.attends_globally):
        return Masks(in_global, "")
    return Masks(in_global, graph.op("And", "mask/local", in_global, _near(graph, row)))


def _allowed(graph: Graph, row: Row) -> str:
    """Add true for each position, [l]; a row that is too long has positions beyond this table.

    `Gather` refuses these, as it does with a table of position embeddings.
    """
    table = graph.constant("mask/table", np.ones(graph.config.max_length), np.bool_)
    return graph.op("Gather", "mask/positions", table, row.positions)


def _near(graph: Graph, row: Row) -> str:
    """Add true for each pair of positions that are in one window, [l, l]."""
    queries = graph.op("Unsqueeze", "mask/queries", row.positions, graph.integers("mask/last", [1]))
    keys = graph.op("Unsqueeze", "mask/keys", row.positions, graph.integers("mask/first", [0]))
    distances = graph.op(
        "Abs", "mask/distances", graph.op("Sub", "mask/differences", queries, keys)
    )
    reach = graph.integers("mask/reach", graph.config.local_attention // 2)
    return graph.op("LessOrEqual", "mask/near", distances, reach)
