"""The positions of a row, and the embeddings: words, positions and token types, normalized."""

from typing import NamedTuple

from bertjax.interop.programs.onnx.graph import Graph, part
from bertjax.interop.programs.onnx.parts import angles, dense, interleaved, lookup, norm
from bertjax.model.embeddings import sinusoid_frequencies


class Row(NamedTuple):
    """What is known of the rows of a batch."""

    length: str
    """Their length l, int64 [1]."""
    size: str
    """The length as a scalar, int64 []."""
    positions: str
    """0 to l - 1, int64 [l]: rows are padded at their end."""


def row(graph: Graph) -> Row:
    """Add the length and the positions of the rows."""
    length = graph.op("Shape", "row/length", "input_ids", start=1, end=2)
    # `Range` takes scalars only.
    size = graph.op("Squeeze", "row/size", length)
    first, step = graph.integers("row/first", 0), graph.integers("row/step", 1)
    return Row(length, size, graph.op("Range", "row/positions", first, size, step))


def embeddings(graph: Graph, row: Row) -> str:
    """Add the encoder's input, [b, l, D]."""
    config, name = graph.config, "embeddings"
    x = lookup(graph, f"{name}/word", "input_ids")
    if config.type_vocab_size:
        token_types = lookup(graph, f"{name}/token_type", "segment_ids")
        x = graph.op("Add", f"{name}/word_and_token_type", x, token_types)
    if config.positions in ("learned", "sinusoidal"):
        x = graph.op("Add", f"{name}/sum", x, _position_vectors(graph, row))
    if config.embedding_norm:
        x = norm(graph, part(f"{name}/layer_norm"), x, config.embedding_width)
    if config.embedding_size:
        x = dense(graph, part(f"{name}/projection"), x)
    return x


def _position_vectors(graph: Graph, row: Row) -> str:
    config, name = graph.config, "embeddings/position"
    offset = graph.integers(f"{name}/offset", config.position_offset)
    positions = graph.op("Add", f"{name}/rows", row.positions, offset)
    if config.positions == "learned":
        # In a row that is too long, the last positions lie beyond the table; `Gather` refuses them.
        return lookup(graph, name, positions)
    width = config.embedding_width
    turned = angles(graph, name, positions, sinusoid_frequencies(width))
    sines = graph.op("Sin", f"{name}/sines", turned)
    cosines = graph.op("Cos", f"{name}/cosines", turned)
    vectors = interleaved(graph, name, sines, cosines, [0, -1])
    if width % 2 == 0:
        return vectors
    start, end = graph.integers(f"{name}/start", [0]), graph.integers(f"{name}/end", [width])
    last = graph.integers(f"{name}/last", [1])
    return graph.op("Slice", f"{name}/cut", vectors, start, end, last)
