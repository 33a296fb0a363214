"""Which keys a query sees in global attention: all those that are no padding."""

import numpy as np

from bertjax.interop.programs.onnx.embeddings import Row
from bertjax.interop.programs.onnx.graph import Graph


def seen_keys(graph: Graph, row: Row) -> str:
    """Add true for each key that is no padding, [b, l]."""
    zero = graph.constant("mask/zero", 0, np.int32)
    seen = graph.op("Greater", "mask/seen", "input_mask", zero)
    if graph.config.positions == "learned":
        return seen
    # A row that is too long has positions beyond this table. It is refused for them, as it is with
    # a table of position embeddings.
    table = graph.constant("mask/table", np.ones(graph.config.max_length), np.bool_)
    allowed = graph.op("Gather", "mask/positions", table, row.positions)
    return graph.op("And", "mask/allowed", seen, allowed)


def global_mask(graph: Graph, seen: str) -> str:
    """Add the keys that a query sees, [b, 1, 1, l]: the same for all heads and all queries."""
    return graph.op("Unsqueeze", "mask", seen, graph.integers("mask/axes", [1, 2]))
