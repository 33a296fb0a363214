"""The weights in an ONNX file: which can be quantized, and what is in a file that was."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.errors import check

Onnx = Any
"""An `onnx.ModelProto`: the package is one of an extra, so its types are not imported here."""

INTEGERS = ("int8", "uint8")
"""Element types of 8 bits; a matrix may have `int4` too."""


@dataclass(frozen=True)
class Weight:
    """A matrix of the graph and the nodes that read it."""

    name: str
    """Its path among the parameters, such as `encoder/layers/0/attention/query/kernel`."""
    nodes: tuple[str, ...]
    """Layers that share their weights have a node each."""
    shape: tuple[int, ...]
    bytes: int
    is_table: bool
    """True for a table that ids are looked up in, False for a matrix of a product."""


def read_graph(path: Path) -> Onnx:
    """Return the graph of a file, without weights that lie in a file beside it."""
    import onnx

    return onnx.load(str(path), load_external_data=False)


def quantizable_weights(graph: Onnx) -> list[Weight]:
    """Return the matrices that products multiply with, and the tables that ids are looked up in.

    A matrix that any other node reads too is not among them: it would be in the file twice.
    """
    readers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        for place, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, place))
    weights = []
    for tensor in graph.graph.initializer:
        shape = tuple(tensor.dims)
        if len(shape) != 2 or type_name(tensor) != "float32":
            continue
        uses = readers.get(tensor.name, [])
        kinds = {(node.op_type, place) for node, place in uses}
        if kinds in ({("MatMul", 1)}, {("Gather", 0)}):
            nodes = tuple(node.name for node, _ in uses)
            is_table = uses[0][0].op_type == "Gather"
            size = 4 * math.prod(shape)
            weights.append(Weight(tensor.name, nodes, shape, size, is_table))
    return weights


def untie(source: Path, target: Path) -> bool:
    """Copy a file with its transposed tables as weights; return whether it had any.

    A tied head for masked words transposes the table of words in the graph. Then neither could be
    quantized; as two matrices of int8 they have half the bytes of one of float32.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(source))
    tables = {tensor.name: tensor for tensor in graph.graph.initializer}
    transposes = [
        node for node in graph.graph.node if node.op_type == "Transpose" and node.input[0] in tables
    ]
    if not transposes:
        return False
    for node in transposes:
        array = numpy_helper.to_array(tables[node.input[0]])
        order = next(list(each.ints) for each in node.attribute if each.name == "perm")
        turned = np.ascontiguousarray(array.transpose(order))
        graph.graph.initializer.append(numpy_helper.from_array(turned, node.output[0]))
        graph.graph.node.remove(node)
    onnx.save(graph, str(target))
    return True


def type_name(tensor: Any) -> str:
    """Return the element type of a tensor, such as `float32`."""
    from onnx import helper

    return helper.tensor_dtype_to_np_dtype(tensor.data_type).name


def bytes_by_type(graph: Onnx) -> dict[str, int]:
    """Return the bytes of all stored tensors of each element type, the largest first."""
    from onnx import helper

    totals: dict[str, int] = {}
    for tensor in graph.graph.initializer:
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        # NumPy has a byte for a number of 4 bits, the file half of one.
        bits = 4 if kind.name == "int4" else 8 * kind.itemsize
        size = -(-bits * math.prod(tensor.dims) // 8)
        totals[kind.name] = totals.get(kind.name, 0) + size
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def check_types(
    path: Path, weights: Sequence[Weight], kept: Sequence[str], bits: int = 8
) -> Mapping[str, int]:
    """Check that a quantized file has integers for each weight that is not `kept` in float.

    Those of matrices have `bits` bits, those of tables 8. Returns `bytes_by_type`. A quantizer that
    passes over a node says nothing, and its file works. Raises `UserError` for the first weight
    that has another type than it should.
    """
    graph = read_graph(path)
    types = {tensor.name: type_name(tensor) for tensor in graph.graph.initializer}
    for weight in weights:
        found = types.get(weight.name)
        if weight.name in kept:
            check(
                found == "float32",
                where=f"{path.name}: {weight.name}",
                found=found or types.get(f"{weight.name}_quantized"),
                expected="float32, since it is kept in float",
            )
            continue
        found = types.get(f"{weight.name}_quantized", found)
        known = INTEGERS if bits == 8 or weight.is_table else (f"int{bits}",)
        check(
            found in known,
            where=f"{path.name}: {weight.name}",
            found=found or "no such tensor",
            expected=known[0],
        )
    return bytes_by_type(graph)


def stored_bytes(folder: Path) -> int:
    """Return the bytes of a model's files: the graph, and weights beside it."""
    return sum(path.stat().st_size for path in folder.glob("model.onnx*"))
