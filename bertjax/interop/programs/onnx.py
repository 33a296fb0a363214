"""The model as an ONNX graph, written node by node: standard operators, named as our parameters
are.

Written by hand because the encoder is a dozen kinds of operator, and a converter of any JAX program
brings more packages than bertjax and pins their versions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from etils import epath

from bertjax.config import ModelConfig
from bertjax.errors import UserError, check
from bertjax.interop.checkpoints.tensor_names import TASK_HEAD
from bertjax.interop.programs.serving import (
    INPUTS,
    choose_outputs,
    needs_pooler,
    new_program,
    served_params,
)
from bertjax.model.functional import Params
from bertjax.storage import write_whole, written_whole
from bertjax.tasks.task_head import TaskHead

PROGRAM = "model.onnx"
WEIGHTS = "model.onnx.data"
OPSET = 20  # the first with Gelu
IR_VERSION = 9  # that of the same release, so that runtimes of its time read the file
MAX_FILE_BYTES = 1_900_000_000  # a protobuf ends at 2 GiB
SMALL = 1024  # bytes; shapes and scalars stay in the graph, where checkers look for them
_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


@dataclass
class _Graph:
    """What is being built: the nodes so far, and those of `weights` that they read."""

    config: ModelConfig
    weights: dict[str, np.ndarray]
    nodes: list[Any] = field(default_factory=list)
    used: dict[str, np.ndarray] = field(default_factory=dict)

    def weight(self, path: str) -> str:
        self.used[path] = self.weights[path]
        return path

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        self.used[name] = np.asarray(value, dtype)
        return name

    def op(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output; both have the name."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def export_onnx(
    config: ModelConfig,
    params: Params,
    folder: epath.PathLike,
    outputs: Sequence[str] = (),
    head: TaskHead | None = None,
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
    """Write `model.onnx` to `folder`, and `model.onnx.data` before it if the weights have over
    `max_file_bytes`.

    The inputs are int32 [b, l] tensors named `input_ids`, `input_mask` and `segment_ids`, the
    outputs float32 by name; both axes are free, and onnxruntime refuses rows longer than
    `config.max_length`. It computes in float32 whatever `config.dtype` is: few runtimes have these
    operators in bfloat16. `outputs` and `head` as for `serving.choose_outputs`. Raises `UserError`
    for those, without the package `onnx`, and where `folder` has a `model.onnx` in it.
    """
    shapes = choose_outputs(config, outputs, head)
    check(
        not config.local_attention,
        where="model.local_attention",
        found=config.local_attention,
        expected="0, for format onnx",
    )
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise UserError(
            f"{folder}: needs the package onnx, which is not installed (bertjax[onnx])"
        ) from error
    path = new_program(folder, PROGRAM)
    graph = _Graph(config, _by_layer(config, served_params(params, shapes, head)))
    _add_outputs(graph, _encoder(graph), tuple(shapes), head)
    if sum(array.nbytes for array in graph.used.values()) > max_file_bytes:
        with written_whole(path / WEIGHTS) as file:
            tensors = [_tensor(name, array, file) for name, array in graph.used.items()]
    else:
        tensors = [_tensor(name, array, None) for name, array in graph.used.items()]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["b", "l"]) for name in INPUTS]
    results = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "bert", inputs, results, tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="bertjax",
    )
    helper.set_model_props(model, {"max_length": str(config.max_length)})
    write_whole(path / PROGRAM, model.SerializeToString())


def _by_layer(config: ModelConfig, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters with a number after `encoder/layers`, and kernels as matrices [in, out]."""
    stack = "encoder/layers/"
    weights = {}
    for path, array in params.items():
        layers = enumerate(array) if path.startswith(stack) else [(None, array)]
        for i, part in layers:
            name = path if i is None else path.replace(stack, f"{stack}{i}/")
            if name.endswith("/kernel"):
                inputs = math.prod(part.shape[:2]) if "attention/output" in name else part.shape[0]
                part = part.reshape(inputs, -1)
            elif name.endswith("/bias"):
                part = part.reshape(-1)
            weights[name] = part
    return weights


def _encoder(g: _Graph) -> str:
    """The last layer's output [b, l, D]."""
    c = g.config
    seen = g.op("Greater", "mask/seen", "input_mask", g.constant("mask/zero", 0, np.int32))
    mask = g.op(
        "Unsqueeze", "mask", seen, g.constant("mask/axes", [1, 2], np.int64)
    )  # [b, 1, 1, l]
    x = _embeddings(g)
    for i in range(c.num_hidden_layers):
        name = f"encoder/layers/{i}"
        weights = "encoder/layers/0" if c.share_layers else name
        attended = _attention(g, f"{name}/attention", f"{weights}/attention", x, mask)
        x = g.op("Add", f"{name}/attention/residual", x, attended)
        x = _layer_norm(g, f"{name}/attention_layer_norm", f"{weights}/attention_layer_norm", x)
        up = _activation(g, f"{name}/mlp", _dense(g, f"{name}/mlp/up", f"{weights}/mlp/up", x))
        down = _dense(g, f"{name}/mlp/down", f"{weights}/mlp/down", up)
        x = g.op("Add", f"{name}/mlp/residual", x, down)
        x = _layer_norm(g, f"{name}/mlp_layer_norm", f"{weights}/mlp_layer_norm", x)
    return x


def _embeddings(g: _Graph) -> str:
    c, name = g.config, "embeddings"
    length = g.op("Shape", f"{name}/length", "input_ids", start=1, end=2)
    length = g.op("Squeeze", f"{name}/length/scalar", length)
    first = g.constant(f"{name}/position/first", c.position_offset, np.int64)
    end = g.op("Add", f"{name}/position/end", length, first)
    rows = g.op(
        "Range",
        f"{name}/position/rows",
        first,
        end,
        g.constant(f"{name}/position/step", 1, np.int64),
    )
    ids = {"word": "input_ids", "token_type": "segment_ids", "position": rows}
    found = {
        n: g.op("Gather", f"{name}/{n}", g.weight(f"{name}/{n}/embedding"), rows)
        for n, rows in ids.items()
    }
    x = g.op("Add", f"{name}/word_and_token_type", found["word"], found["token_type"])
    x = g.op("Add", f"{name}/sum", x, found["position"])
    x = _layer_norm(g, f"{name}/layer_norm", f"{name}/layer_norm", x)
    return _dense(g, f"{name}/projection", f"{name}/projection", x) if c.embedding_size else x


def _attention(g: _Graph, name: str, weights: str, x: str, mask: str) -> str:
    """As `model.attention`, [b, l, D] to [b, l, D]; a 0 in the shapes keeps an axis."""
    c = g.config
    width = c.hidden_size // c.num_attention_heads
    split = g.constant("attention/split", [0, 0, c.num_attention_heads, width], np.int64)
    parts = {}
    for part, order in {"query": (0, 2, 1, 3), "key": (0, 2, 3, 1), "value": (0, 2, 1, 3)}.items():
        flat = _dense(g, f"{name}/{part}", f"{weights}/{part}", x)
        heads = g.op("Reshape", f"{name}/{part}/heads", flat, split)
        parts[part] = g.op("Transpose", f"{name}/{part}/transposed", heads, perm=order)
    query = g.op(
        "Mul", f"{name}/scaled", parts["query"], g.constant("attention/scale", 1 / math.sqrt(width))
    )
    logits = g.op("MatMul", f"{name}/logits", query, parts["key"])
    lowest = g.constant("attention/lowest", np.finfo(np.float32).min)
    probabilities = g.op(
        "Softmax", f"{name}/probabilities", g.op("Where", f"{name}/seen", mask, logits, lowest)
    )
    mixed = g.op("MatMul", f"{name}/mixed", probabilities, parts["value"])
    mixed = g.op("Transpose", f"{name}/mixed/transposed", mixed, perm=(0, 2, 1, 3))
    joined = g.op(
        "Reshape",
        f"{name}/joined",
        mixed,
        g.constant("attention/join", [0, 0, c.hidden_size], np.int64),
    )
    return _dense(g, f"{name}/output", f"{weights}/output", joined)


def _add_outputs(g: _Graph, x: str, outputs: Sequence[str], head: TaskHead | None) -> None:
    """Nodes named as `outputs`, from the last layer's output `x`."""
    if "hidden" in outputs:
        g.op("Identity", "hidden", x)
    pooled = ""
    if needs_pooler(outputs, head):
        first = g.op("Gather", "pooler/first", x, g.constant("pooler/zero", 0, np.int64), axis=1)
        pooled = g.op("Tanh", "pooled", _dense(g, "pooler", "pooler", first))
    if "nsp_logits" in outputs:
        g.op("Identity", "nsp_logits", _dense(g, "nsp", "nsp", pooled))
    if head and "logits" in outputs:
        g.op("Identity", "logits", _dense(g, TASK_HEAD, TASK_HEAD, x if head.on_tokens else pooled))
    if "mlm_logits" in outputs:
        x = _activation(g, "mlm/transform", _dense(g, "mlm/transform", "mlm/transform", x))
        x = _layer_norm(g, "mlm/layer_norm", "mlm/layer_norm", x)
        table = g.op(
            "Transpose", "mlm/word_embedding", g.weight("embeddings/word/embedding"), perm=(1, 0)
        )
        g.op("Add", "mlm_logits", g.op("MatMul", "mlm/matmul", x, table), g.weight("mlm/bias"))


def _dense(g: _Graph, name: str, weights: str, x: str) -> str:
    product = g.op("MatMul", f"{name}/matmul", x, g.weight(f"{weights}/kernel"))
    return g.op("Add", f"{name}/add", product, g.weight(f"{weights}/bias"))


def _layer_norm(g: _Graph, name: str, weights: str, x: str) -> str:
    scale, bias = g.weight(f"{weights}/scale"), g.weight(f"{weights}/bias")
    return g.op(
        "LayerNormalization", name, x, scale, bias, axis=-1, epsilon=g.config.layer_norm_eps
    )


def _activation(g: _Graph, name: str, x: str) -> str:
    kind, attributes = _ACTIVATIONS[g.config.hidden_act]
    return g.op(kind, f"{name}/{g.config.hidden_act}", x, **attributes)


def _tensor(name: str, array: np.ndarray, file: IO[bytes] | None) -> Any:
    """The array inside the graph, or at the end of `file`."""
    from onnx import TensorProto, numpy_helper

    if file is None or array.nbytes <= SMALL:
        return numpy_helper.from_array(array, name)
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": WEIGHTS, "offset": file.tell(), "length": array.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    file.write(np.ascontiguousarray(array, "<f4").tobytes())
    return tensor
