"""Disentangled attention (arXiv 2006.03654): scores of content with relative positions."""

from typing import NamedTuple

import numpy as np

from bertjax.interop.programs.onnx.embeddings import Row
from bertjax.interop.programs.onnx.graph import Graph, Part, part
from bertjax.interop.programs.onnx.parts import dense, norm
from bertjax.model.attention.relative_attention import bucket_indices


class Relative(NamedTuple):
    """What the scores of every layer read."""

    vectors: str
    """The vectors of relative positions, normalized, [R, D]."""
    falling: str
    """Rows of the vectors for the distances l - 1 down to -l, int64 [2 l]."""
    rising: str
    """The same for the distances 1 - l up to l."""
    row: Row
    before: str
    """l - 1, int64 [1]."""
    shape: str
    """The shape [0, 0, l, -1], int64 [4]."""


def relative(graph: Graph, row: Row) -> Relative:
    """Add what is the same in all layers."""
    config, name = graph.config, "encoder/relative"
    table = graph.weight(f"{name}/embedding")
    vectors = norm(graph, part("encoder/relative_layer_norm"), table, config.hidden_size)
    before = graph.op("Sub", f"{name}/before", row.length, graph.integers(f"{name}/one", [1]))
    kept, rest = graph.integers(f"{name}/kept", [0, 0]), graph.integers(f"{name}/rest", [-1])
    shape = graph.op("Concat", f"{name}/shape", kept, row.length, rest, axis=0)
    falling = _rows(graph, f"{name}/falling", row, falling=True)
    rising = _rows(graph, f"{name}/rising", row, falling=False)
    return Relative(vectors, falling, rising, row, before, shape)


def _rows(graph: Graph, name: str, row: Row, *, falling: bool) -> str:
    """Add the rows of the table of vectors for 2 l distances."""
    longest = graph.config.max_length
    # Two distances more at each end. The first takes part in the products, and in no score. The
    # second keeps the end of a falling range from being -1: onnxruntime makes a `Slice` of `Range`
    # and `Gather`, and to a `Slice` this is the last element (seen in 1.32).
    buckets = np.pad(bucket_indices(graph.config, longest), 2, mode="edge")
    # The bucket of distance d is at d + longest + 1.
    if falling:
        origin, first_kind, end_kind, step = longest, "Add", "Sub", -1
    else:
        origin, first_kind, end_kind, step = longest + 2, "Sub", "Add", 1
    middle = graph.integers(f"{name}/origin", origin)
    first = graph.op(first_kind, f"{name}/first", middle, row.size)
    end = graph.op(end_kind, f"{name}/end", middle, row.size)
    places = graph.op("Range", f"{name}/places", first, end, graph.integers(f"{name}/step", step))
    return graph.op("Gather", name, graph.integers("encoder/relative/buckets", buckets), places)


def relative_scores(
    graph: Graph, attention: Part, relative: Relative, query: str, key: str, scale: str
) -> str:
    """Add what relative positions add to the scores, [b, H, l, l].

    `query` and `key` are [b, H, l, K]; the queries are scaled already.
    """
    name = f"{attention.name}/relative"
    keys = _vectors(graph, attention, relative, "key")
    to_keys = _by_distance(graph, f"{name}/to_keys", query, keys, relative, relative.falling)
    queries = _vectors(graph, attention, relative, "query")
    queries = graph.op("Mul", f"{name}/scaled", queries, scale)
    to_queries = _by_distance(graph, f"{name}/to_queries", key, queries, relative, relative.rising)
    turned = graph.op("Transpose", f"{name}/to_queries/turned", to_queries, perm=(0, 1, 3, 2))
    return graph.op("Add", f"{name}/scores", to_keys, turned)


def _vectors(graph: Graph, attention: Part, relative: Relative, which: str) -> str:
    """Add the projected vectors of relative positions, [R, D]; runtimes compute them once."""
    inner = which if graph.config.relative_projections == "shared" else f"relative_{which}"
    weights = attention.of(inner).weights
    return dense(graph, Part(f"{attention.name}/relative/{which}", weights), relative.vectors)


def _by_distance(
    graph: Graph, name: str, x: str, vectors: str, relative: Relative, rows: str
) -> str:
    """Add the products of each row of `x` with the vectors of its l distances, [b, H, l, l].

    Each row i has products with 2 l distances, of which it needs the l that begin at l - 1 - i. In
    the flat array these lie 2 l - 1 apart from row to row (arXiv 1809.04281, section 3.4.1).
    """
    gathered = graph.op("Gather", f"{name}/gathered", vectors, rows, axis=0)
    split = graph.integers("encoder/relative/split", [0, -1, graph.config.head_width])
    heads = graph.op("Reshape", f"{name}/heads", gathered, split)
    columns = graph.op("Transpose", f"{name}/columns", heads, perm=(1, 2, 0))
    products = graph.op("MatMul", f"{name}/products", x, columns)
    flat_shape = graph.integers("encoder/relative/flat", [0, 0, -1])
    flat = graph.op("Reshape", f"{name}/flat", products, flat_shape)
    axis = graph.integers("encoder/relative/flat_axis", [2])
    end = graph.integers("encoder/relative/flat_end", [-1])
    cut = graph.op("Slice", f"{name}/cut", flat, relative.before, end, axis)
    shifted = graph.op("Reshape", f"{name}/shifted", cut, relative.shape)
    zero = graph.integers("encoder/relative/zero", [0])
    last = graph.integers("encoder/relative/last", [3])
    return graph.op("Slice", name, shifted, zero, relative.row.length, last)
