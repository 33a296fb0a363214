"""The self-attention sublayer, from [b, l, D] to [b, l, D]."""

import math
from typing import NamedTuple

import numpy as np

from bertjax.interop.programs.onnx.graph import Graph, Part
from bertjax.interop.programs.onnx.parts import activation, dense, norm
from bertjax.interop.programs.onnx.relative import Relative, relative_scores
from bertjax.interop.programs.onnx.rotary import Rotation, rotate
from bertjax.interop.programs.onnx.windows import Windows, joined_blocks, key_blocks, query_blocks


class Surroundings(NamedTuple):
    """What every layer's attention reads beside the hidden states."""

    mask: str
    """The keys that a query sees in global layers, [b, 1, 1, l]."""
    windows: Windows | None
    """What local layers need; None if there are none."""
    rotations: tuple[Rotation, Rotation] | None
    """Rotary positions of global and of local layers."""
    relative: Relative | None


def attention(
    graph: Graph, part: Part, x: str, surroundings: Surroundings, *, is_global: bool
) -> str:
    """Add the sublayer; its parameters are those of `model.attention`."""
    config, name = graph.config, part.name
    query, key, value = (_heads(graph, part.of(which), x) for which in ("query", "key", "value"))
    if surroundings.rotations is not None:
        in_global, in_local = surroundings.rotations
        by = in_global if is_global else in_local
        query = rotate(graph, f"{name}/query", query, by)
        key = rotate(graph, f"{name}/key", key, by)
    # After the rotation, which then works on fewer heads.
    key, value = _for_all_heads(graph, part, key), _for_all_heads(graph, part, value)
    # The queries are scaled and not the scores, as in `model.attention`: there are fewer queries.
    query = graph.op("Mul", f"{name}/scaled", query, _scale(graph))
    windows = surroundings.windows
    if is_global or windows is None:
        logits = _products(graph, name, query, key, (0, 1, 3, 2))
        if surroundings.relative is not None:
            scale = _scale(graph)
            added = relative_scores(graph, part, surroundings.relative, query, key, scale)
            logits = graph.op("Add", f"{name}/logits/relative", logits, added)
        mixed = _mixed(graph, name, logits, surroundings.mask, value)
    else:
        query = query_blocks(graph, windows, query)
        key, value = key_blocks(graph, windows, key), key_blocks(graph, windows, value)
        logits = _products(graph, name, query, key, (0, 1, 2, 4, 3))
        mixed = joined_blocks(graph, windows, _mixed(graph, name, logits, windows.mask, value))
    mixed = graph.op("Transpose", f"{name}/mixed/transposed", mixed, perm=(0, 2, 1, 3))
    # Layers may have different numbers of heads: a pruned model's, in a program.
    join = graph.integers("attention/join", [0, 0, -1])
    joined = graph.op("Reshape", f"{name}/joined", mixed, join)
    if config.value_gate:
        gate = activation(graph, f"{name}/gate", "gelu", dense(graph, part.of("gate"), x))
        joined = graph.op("Mul", f"{name}/gated", joined, gate)
    if config.norm_inside:
        joined = norm(graph, part.of("inner_norm"), joined, config.attention_width)
    return dense(graph, part.of("output"), joined)


def _heads(graph: Graph, part: Part, x: str) -> str:
    """Add queries, keys or values with their heads apart, [b, heads, l, K]."""
    # A 0 in the shape of a Reshape keeps the axis as it is.
    split = graph.integers("attention/split", [0, 0, -1, graph.config.head_width])
    heads = graph.op("Reshape", f"{part.name}/heads", dense(graph, part, x), split)
    return graph.op("Transpose", f"{part.name}/transposed", heads, perm=(0, 2, 1, 3))


def _for_all_heads(graph: Graph, part: Part, x: str) -> str:
    """Add keys or values for each head of queries, if they have fewer heads."""
    config = graph.config
    share = config.num_attention_heads // config.key_value_heads
    if share == 1:
        return x
    count = graph.weights[f"{part.weights}/key/kernel"].shape[1] // config.head_width
    # Each serves as many heads of queries that follow each other.
    heads = graph.integers(f"attention/key_value_heads/{count}", np.arange(count).repeat(share))
    return graph.op("Gather", f"{x}/for_all_heads", x, heads, axis=1)


def _scale(graph: Graph) -> str:
    """Add the factor of the scores."""
    config = graph.config
    # With relative positions three kinds of scores are added up (arXiv 2006.03654, equation 4).
    kinds = 3 if config.relative_positions else 1
    return graph.constant("attention/scale", 1 / math.sqrt(kinds * config.head_width))


def _products(graph: Graph, name: str, query: str, key: str, turned: tuple[int, ...]) -> str:
    """Add the products of queries and keys; `turned` are the keys' axes, the last two in turn."""
    columns = graph.op("Transpose", f"{name}/key/columns", key, perm=turned)
    return graph.op("MatMul", f"{name}/logits", query, columns)


def _mixed(graph: Graph, name: str, logits: str, mask: str, value: str) -> str:
    """Add the sums of the values, weighted by the softmax of the logits where `mask` is true."""
    # Not minus infinity: a row that is only padding would then be all NaN.
    lowest = graph.constant("attention/lowest", np.finfo(np.float32).min)
    seen = graph.op("Where", f"{name}/seen", mask, logits, lowest)
    probabilities = graph.op("Softmax", f"{name}/probabilities", seen, axis=-1)
    return graph.op("MatMul", f"{name}/mixed", probabilities, value)
