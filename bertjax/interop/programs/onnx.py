"""Export to an ONNX graph of standard operators, with names made from the parameters' paths.

The graph is written node by node. The encoder needs only about a dozen kinds of operator, whereas a
converter for any JAX program needs more packages than bertjax itself and pins their versions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from etils import epath

from bertjax.config import ModelConfig
from bertjax.errors import check, needs_extra
from bertjax.interop.checkpoints.families.family import TASK_HEAD
from bertjax.interop.programs.serving import INPUTS, ServedModel, needs_pooler, new_program
from bertjax.storage import write_whole, written_whole

PROGRAM = "model.onnx"
WEIGHTS = "model.onnx.data"
# Versions: https://github.com/onnx/onnx/blob/main/docs/Versioning.md.
OPSET = 20  # the first with Gelu
IR_VERSION = 9  # of the release that brought this opset, so that runtimes of that age read the file
MAX_FILE_BYTES = 1_900_000_000  # a protobuf file has at most 2 GiB, and the nodes need some of it
MAX_INLINE_BYTES = 1024  # shapes and scalars stay in the graph, where checkers look for them
_LAYERS = "encoder/layers/"
_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


@dataclass
class _Graph:
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

    def weight(self, path: str) -> str:
        # Under its path, so that weights which several layers share are stored once.
        self.used[path] = self.weights[path]
        return path

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        self.used[name] = np.asarray(value, dtype)
        return name

    def op(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; node and output are both called `name`."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def export_onnx(
    model: ServedModel, folder: epath.PathLike, *, max_file_bytes: int = MAX_FILE_BYTES
) -> None:
    """Write `model.onnx` to `folder`; if the weights are large, write `model.onnx.data` before it.

    The weights are large if they have more than `max_file_bytes` together. The inputs are int32
    [b, l] tensors named `input_ids`, `input_mask` and `segment_ids`; the outputs are float32
    tensors named as in `model.outputs`. Both b and l may vary, and onnxruntime refuses rows longer
    than `config.max_length`. The graph computes in float32 whatever `config.dtype` is, because few
    runtimes have these operators in bfloat16. Raises `UserError` for a model with local attention,
    if the package `onnx` is missing, and if `folder` already has a `model.onnx`.
    """
    config = model.config
    check(
        not config.local_attention,
        where="model.local_attention",
        found=config.local_attention,
        expected="0, for format onnx",
    )
    with needs_extra("onnx"):
        from onnx import TensorProto, helper
    path = new_program(folder, PROGRAM)
    graph = _Graph(config, _weights_by_layer(config, model.params))
    _add_outputs(graph, _encoder(graph), model)
    if sum(array.nbytes for array in graph.used.values()) > max_file_bytes:
        with written_whole(path / WEIGHTS) as file:
            tensors = _tensors(graph, file)
    else:
        tensors = _tensors(graph, None)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["b", "l"]) for name in INPUTS]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in model.outputs.items()
    ]
    program = helper.make_model(
        helper.make_graph(graph.nodes, "bert", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="bertjax",
    )
    # The graph itself does not state a limit for its free axes, so the file's properties do.
    helper.set_model_props(program, {"max_length": str(config.max_length)})
    write_whole(path / PROGRAM, program.SerializeToString())


def _weights_by_layer(
    config: ModelConfig, params: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the parameters by path, each layer's under its number, with kernels as [in, out]."""
    weights: dict[str, np.ndarray] = {}
    for path, array in params.items():
        if not path.startswith(_LAYERS):
            weights[path] = _flat(path, array)
            continue
        for i, layer in enumerate(array):
            weights[path.replace(_LAYERS, f"{_LAYERS}{i}/")] = _flat(path, layer)
    return weights


def _flat(path: str, array: np.ndarray) -> np.ndarray:
    """Return a kernel as a matrix and a bias as a vector.

    In the parameters of attention, heads and head width are separate axes.
    """
    if path.endswith("/kernel"):
        # Only the output projection of attention has two input axes: heads and head width.
        inputs = 2 if "attention/output" in path else 1
        return array.reshape(math.prod(array.shape[:inputs]), -1)
    if path.endswith("/bias"):
        return array.reshape(-1)
    return array


def _encoder(graph: _Graph) -> str:
    """Add the encoder; return the name of the last layer's output, [b, l, D]."""
    config = graph.config
    zero = graph.constant("mask/zero", 0, np.int32)
    seen = graph.op("Greater", "mask/seen", "input_mask", zero)
    # [b, l] to [b, 1, 1, l], for all heads and all queries.
    axes = graph.constant("mask/axes", [1, 2], np.int64)
    mask = graph.op("Unsqueeze", "mask", seen, axes)
    x = _embeddings(graph)
    for i in range(config.num_hidden_layers):
        name = f"{_LAYERS}{i}"
        weights = f"{_LAYERS}0" if config.share_layers else name
        attended = _attention(graph, f"{name}/attention", f"{weights}/attention", x, mask)
        x = graph.op("Add", f"{name}/attention/residual", x, attended)
        norm = "attention_layer_norm"
        x = _layer_norm(graph, f"{name}/{norm}", f"{weights}/{norm}", x)
        up = _dense(graph, f"{name}/mlp/up", f"{weights}/mlp/up", x)
        activated = _activation(graph, f"{name}/mlp", up)
        down = _dense(graph, f"{name}/mlp/down", f"{weights}/mlp/down", activated)
        x = graph.op("Add", f"{name}/mlp/residual", x, down)
        x = _layer_norm(graph, f"{name}/mlp_layer_norm", f"{weights}/mlp_layer_norm", x)
    return x


def _embeddings(graph: _Graph) -> str:
    config, name = graph.config, "embeddings"
    # Positions count from the beginning of a row, because rows are padded at their end.
    length = graph.op("Shape", f"{name}/length", "input_ids", start=1, end=2)
    # `Range` takes scalars only.
    length = graph.op("Squeeze", f"{name}/length/scalar", length)
    first = graph.constant(f"{name}/position/first", config.position_offset, np.int64)
    end = graph.op("Add", f"{name}/position/end", length, first)
    step = graph.constant(f"{name}/position/step", 1, np.int64)
    # In a row that is too long, the last positions lie beyond the table, and `Gather` refuses them.
    positions = graph.op("Range", f"{name}/position/rows", first, end, step)
    words = _lookup(graph, f"{name}/word", "input_ids")
    token_types = _lookup(graph, f"{name}/token_type", "segment_ids")
    position_vectors = _lookup(graph, f"{name}/position", positions)
    x = graph.op("Add", f"{name}/word_and_token_type", words, token_types)
    x = graph.op("Add", f"{name}/sum", x, position_vectors)
    x = _layer_norm(graph, f"{name}/layer_norm", f"{name}/layer_norm", x)
    if config.embedding_size:
        x = _dense(graph, f"{name}/projection", f"{name}/projection", x)
    return x


def _lookup(graph: _Graph, name: str, ids: str) -> str:
    return graph.op("Gather", name, graph.weight(f"{name}/embedding"), ids)


def _attention(graph: _Graph, name: str, weights: str, x: str, mask: str) -> str:
    """Add the nodes of `model.attention`, from [b, l, D] to [b, l, D]."""
    config = graph.config
    width = config.hidden_size // config.num_attention_heads
    # A 0 in the shape of a Reshape keeps the axis as it is.
    split = graph.constant("attention/split", [0, 0, config.num_attention_heads, width], np.int64)
    parts = {}
    # Keys as [b, heads, width, l], the others as [b, heads, l, width].
    for part, axes in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
        flat = _dense(graph, f"{name}/{part}", f"{weights}/{part}", x)
        heads = graph.op("Reshape", f"{name}/{part}/heads", flat, split)
        parts[part] = graph.op("Transpose", f"{name}/{part}/transposed", heads, perm=axes)
    scale = graph.constant("attention/scale", 1 / math.sqrt(width))
    # The queries are scaled and not the scores, as in `model.attention`: there are fewer queries.
    query = graph.op("Mul", f"{name}/scaled", parts["query"], scale)
    logits = graph.op("MatMul", f"{name}/logits", query, parts["key"])
    # Not minus infinity: a row that is only padding would then be all NaN.
    lowest = graph.constant("attention/lowest", np.finfo(np.float32).min)
    seen = graph.op("Where", f"{name}/seen", mask, logits, lowest)
    probabilities = graph.op("Softmax", f"{name}/probabilities", seen)
    mixed = graph.op("MatMul", f"{name}/mixed", probabilities, parts["value"])
    mixed = graph.op("Transpose", f"{name}/mixed/transposed", mixed, perm=(0, 2, 1, 3))
    join = graph.constant("attention/join", [0, 0, config.hidden_size], np.int64)
    joined = graph.op("Reshape", f"{name}/joined", mixed, join)
    return _dense(graph, f"{name}/output", f"{weights}/output", joined)


def _add_outputs(graph: _Graph, hidden: str, model: ServedModel) -> None:
    """Add a node named as each output of `model`; `hidden` is the last layer's output."""
    outputs, head = model.outputs, model.head
    if "hidden" in outputs:
        graph.op("Identity", "hidden", hidden)
    pooled = ""
    if needs_pooler(outputs, head):
        zero = graph.constant("pooler/zero", 0, np.int64)
        first = graph.op("Gather", "pooler/first", hidden, zero, axis=1)
        pooled = graph.op("Tanh", "pooled", _dense(graph, "pooler", "pooler", first))
    if "nsp_logits" in outputs:
        graph.op("Identity", "nsp_logits", _dense(graph, "nsp", "nsp", pooled))
    if head is not None and "logits" in outputs:
        x = hidden if head.on_tokens else pooled
        graph.op("Identity", "logits", _dense(graph, TASK_HEAD, TASK_HEAD, x))
    if "mlm_logits" in outputs:
        x = _dense(graph, "mlm/transform", "mlm/transform", hidden)
        x = _activation(graph, "mlm/transform", x)
        x = _layer_norm(graph, "mlm/layer_norm", "mlm/layer_norm", x)
        table = graph.weight("embeddings/word/embedding")
        # The graph transposes the table, so that the file has the embeddings once for both uses.
        table = graph.op("Transpose", "mlm/word_embedding", table, perm=(1, 0))
        product = graph.op("MatMul", "mlm/matmul", x, table)
        graph.op("Add", "mlm_logits", product, graph.weight("mlm/bias"))


def _dense(graph: _Graph, name: str, weights: str, x: str) -> str:
    product = graph.op("MatMul", f"{name}/matmul", x, graph.weight(f"{weights}/kernel"))
    return graph.op("Add", f"{name}/add", product, graph.weight(f"{weights}/bias"))


def _layer_norm(graph: _Graph, name: str, weights: str, x: str) -> str:
    scale = graph.weight(f"{weights}/scale")
    bias = graph.weight(f"{weights}/bias")
    epsilon = graph.config.layer_norm_eps
    return graph.op("LayerNormalization", name, x, scale, bias, axis=-1, epsilon=epsilon)


def _activation(graph: _Graph, name: str, x: str) -> str:
    kind, attributes = _ACTIVATIONS[graph.config.hidden_act]
    return graph.op(kind, f"{name}/{graph.config.hidden_act}", x, **attributes)


def _tensors(graph: _Graph, file: IO[bytes] | None) -> list[Any]:
    return [_tensor(name, array, file) for name, array in graph.used.items()]


def _tensor(name: str, array: np.ndarray, file: IO[bytes] | None) -> Any:
    """Return an `onnx.TensorProto` that holds the array or refers to it in `file`.

    An array of more than `MAX_INLINE_BYTES` is appended to `file`, if there is one.
    """
    from onnx import TensorProto, numpy_helper

    if file is None or array.nbytes <= MAX_INLINE_BYTES:
        return numpy_helper.from_array(array, name)
    # Only weights are this large, and all weights are float32.
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
    # See https://github.com/onnx/onnx/blob/main/docs/ExternalData.md.
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": WEIGHTS, "offset": file.tell(), "length": array.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    # ONNX keeps raw data little-endian on every machine.
    file.write(np.ascontiguousarray(array, "<f4").tobytes())
    return tensor
