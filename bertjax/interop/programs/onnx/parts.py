"""The small parts that every layer is made of: linear layer, norm, activation, angles."""

import numpy as np

from bertjax.interop.programs.onnx.graph import Graph, Part

_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}


def lookup(graph: Graph, name: str, ids: str) -> str:
    """Add the rows of an embedding table that `ids` name."""
    return graph.op("Gather", name, graph.weight(f"{name}/embedding"), ids)


def dense(graph: Graph, part: Part, x: str) -> str:
    """Add a linear layer, with a bias if it has one."""
    kernel = graph.weight(f"{part.weights}/kernel")
    product = graph.op("MatMul", f"{part.name}/matmul", x, kernel)
    return _with_bias(graph, part, product)


def norm(graph: Graph, part: Part, x: str, width: int) -> str:
    """Add the norm of `x` over its last axis, which has `width` elements."""
    scale_path = f"{part.weights}/scale"
    if scale_path in graph.weights:
        scale = graph.weight(scale_path)
    else:
        # `LayerNormalization` has no form without a scale.
        scale = graph.constant(f"norm/ones/{width}", np.ones(width))
    if graph.config.norm_type == "rms_norm":
        normal = graph.op("Mul", f"{part.name}/scaled", _unit_mean_square(graph, part, x), scale)
        return _with_bias(graph, part, normal)
    inputs = [x, scale]
    if f"{part.weights}/bias" in graph.weights:
        inputs.append(graph.weight(f"{part.weights}/bias"))
    epsilon = graph.config.layer_norm_eps
    return graph.op("LayerNormalization", part.name, *inputs, axis=-1, epsilon=epsilon)


def _unit_mean_square(graph: Graph, part: Part, x: str) -> str:
    """Add `x` divided by the root of its mean square.

    `RMSNormalization` is an operator since opset 23 only. Runtimes know this form of it: they make
    one operation of it and of the product with the scale.
    """
    name = part.name
    square = graph.op("Pow", f"{name}/square", x, graph.constant("norm/two", 2))
    last = graph.integers("norm/last", [-1])
    mean = graph.op("ReduceMean", f"{name}/mean", square, last)
    epsilon = graph.constant("norm/epsilon", graph.config.layer_norm_eps)
    root = graph.op("Sqrt", f"{name}/root", graph.op("Add", f"{name}/positive", mean, epsilon))
    return graph.op("Div", f"{name}/divided", x, root)


def _with_bias(graph: Graph, part: Part, x: str) -> str:
    path = f"{part.weights}/bias"
    if path not in graph.weights:
        return x
    return graph.op("Add", f"{part.name}/add", x, graph.weight(path))


def activation(graph: Graph, name: str, kind: str, x: str) -> str:
    """Add the activation function `kind`."""
    if kind == "silu":
        return graph.op("Mul", f"{name}/silu", x, graph.op("Sigmoid", f"{name}/sigmoid", x))
    operator, attributes = _ACTIVATIONS[kind]
    return graph.op(operator, f"{name}/{kind}", x, **attributes)


def angles(graph: Graph, name: str, positions: str, frequencies: np.ndarray) -> str:
    """Add the product of each position with each frequency, float32 [l, frequencies]."""
    numbers = graph.op("Cast", f"{name}/numbers", positions, to=1)  # 1 is TensorProto.FLOAT
    last = graph.integers("angles/last", [-1])
    column = graph.op("Unsqueeze", f"{name}/column", numbers, last)
    constant = graph.constant(f"{name}/frequencies", frequencies)
    return graph.op("Mul", f"{name}/angles", column, constant)


def interleaved(graph: Graph, name: str, first: str, second: str, shape: list[int]) -> str:
    """Add a tensor with elements of `first` and `second` by turns along the last axis.

    `shape` is its shape, where 0 keeps the size of an axis.
    """
    last = graph.integers("interleaved/last", [-1])
    columns = [graph.op("Unsqueeze", f"{name}/{i}", x, last) for i, x in enumerate((first, second))]
    pairs = graph.op("Concat", f"{name}/pairs", *columns, axis=-1)
    new = graph.integers(f"interleaved/{'x'.join(map(str, shape))}", shape)
    return graph.op("Reshape", f"{name}/interleaved", pairs, new)
