"""Rotary positions (arXiv 2104.09864), of operators that every runtime has.

`RotaryEmbedding` is an operator since opset 23 only.
"""

from typing import NamedTuple

from bertjax.interop.programs.onnx.embeddings import Row
from bertjax.interop.programs.onnx.graph import Graph
from bertjax.interop.programs.onnx.parts import angles, interleaved
from bertjax.model.attention.rotary import frequencies


class Rotation(NamedTuple):
    """Cosines and sines of the angles, float32 [l, K / 2]."""

    cosines: str
    sines: str


def rotation(graph: Graph, name: str, row: Row, base: float) -> Rotation:
    """Add the rotation at each position: pair i turns by base^(-2 i / K) per position."""
    turned = angles(graph, name, row.positions, frequencies(graph.config, base))
    cosines = graph.op("Cos", f"{name}/cosines", turned)
    return Rotation(cosines, graph.op("Sin", f"{name}/sines", turned))


def rotate(graph: Graph, name: str, x: str, by: Rotation) -> str:
    """Add queries or keys, [b, heads, l, K], rotated."""
    config = graph.config
    first, second = _pairs(graph, name, x)
    # One turned element of each pair is first * cosine - second * sine.
    turned_first = graph.op(
        "Sub",
        f"{name}/turned_first",
        graph.op("Mul", f"{name}/first_cosine", first, by.cosines),
        graph.op("Mul", f"{name}/second_sine", second, by.sines),
    )
    turned_second = graph.op(
        "Add",
        f"{name}/turned_second",
        graph.op("Mul", f"{name}/second_cosine", second, by.cosines),
        graph.op("Mul", f"{name}/first_sine", first, by.sines),
    )
    if config.rotary_pairs == "half":
        return graph.op("Concat", f"{name}/rotated", turned_first, turned_second, axis=-1)
    shape = [0, 0, 0, config.head_width]
    return interleaved(graph, f"{name}/rotated", turned_first, turned_second, shape)


def _pairs(graph: Graph, name: str, x: str) -> tuple[str, str]:
    """Add the first and the second elements of the pairs of each head."""
    width = graph.config.head_width
    bounds, step = ((0, width // 2), (width // 2, width)), 1
    if graph.config.rotary_pairs == "interleaved":
        bounds, step = ((0, width), (1, width)), 2
    last, steps = graph.integers("rotary/last", [3]), graph.integers("rotary/step", [step])
    parts = []
    for which, (start, end) in zip(("first", "second"), bounds, strict=True):
        starts = graph.integers(f"rotary/{which}/start", [start])
        ends = graph.integers(f"rotary/{which}/end", [end])
        parts.append(graph.op("Slice", f"{name}/{which}", x, starts, ends, last, steps))
    return parts[0], parts[1]
