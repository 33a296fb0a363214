"""An ONNX graph under construction, with names made from the parameters' paths."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import ModelConfig
from bertjax.model.functional import LAYERS


class Part(NamedTuple):
    """A part of the model: the name of its nodes, and the path of its weights.

    Layers that share their weights have nodes of their own.
    """

    name: str
    weights: str

    def of(self, inner: str) -> "Part":
        """Return the part called `inner` of this part."""
        return Part(f"{self.name}/{inner}", f"{self.weights}/{inner}")


def part(path: str) -> Part:
    """Return the part whose nodes are named as its weights."""
    return Part(path, path)


@dataclass
class Graph:
    """A graph under construction: its nodes so far, and the weights that they read.

    Nodes refer to tensors by name: each method returns the name of the tensor that it adds.
    """

    config: ModelConfig
    weights: dict[str, np.ndarray]
    """All weights that nodes may read, by path."""
    nodes: list[Any] = field(default_factory=list)
    """`onnx.NodeProto`s, each after the nodes whose outputs it reads, as ONNX requires."""
    used: dict[str, np.ndarray] = field(default_factory=dict)
    """Weights and constants that at least one node reads, by name."""
    known: set[str] = field(default_factory=set)
    """Paths of the weights that the graph computes with, or that need no node."""

    def weight(self, path: str) -> str:
        """Return the name of a weight."""
        # Under its path, so that weights which several layers share are stored once.
        self.used[path] = self.value(path)
        return path

    def value(self, path: str) -> np.ndarray:
        """Return a weight whose elements become constants of the graph."""
        self.known.add(path)
        return self.weights[path]

    def unknown(self) -> list[str]:
        """Return the paths of the weights that the graph does not compute with."""
        return sorted(self.weights.keys() - self.known)

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        """Add a constant, or the same one again where several layers read it."""
        self.used[name] = np.asarray(value, dtype)
        return name

    def integers(self, name: str, values: Any) -> str:
        """Add an int64 constant, such as a shape or axes."""
        return self.constant(name, values, np.int64)

    def op(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; node and output are both called `name`."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def weights_by_layer(
    params: Mapping[str, np.ndarray | Sequence[np.ndarray]],
) -> dict[str, np.ndarray]:
    """Return the parameters by path, each layer's under its number, with kernels as [in, out].

    Those of the layers are a stack, or one array a layer where these have different sizes.
    """
    weights: dict[str, np.ndarray] = {}
    for path, array in params.items():
        if not path.startswith(LAYERS):
            weights[path] = _flat(path, np.asarray(array))
            continue
        for i, layer in enumerate(array):
            weights[path.replace(LAYERS, f"{LAYERS}{i}/")] = _flat(path, layer)
    return weights


def _flat(path: str, array: np.ndarray) -> np.ndarray:
    """Return a kernel as a matrix and a bias as a vector.

    In the parameters of attention, heads and head width are separate axes.
    """
    if path.endswith("/kernel"):
        # Only the output projection of attention has two input axes: heads and head width.
        inputs = 2 if path.endswith("attention/output/kernel") else 1
        return array.reshape(math.prod(array.shape[:inputs]), -1)
    if path.endswith("/bias"):
        return array.reshape(-1)
    if path == "mlm/decoder":
        # As a kernel too: programs that quantize a graph look for products with stored matrices.
        return array.T
    return array
