"""Export to an ONNX graph of standard operators, with names made from the parameters' paths.

The graph is written node by node. The encoder needs only about two dozen kinds of operator, whereas
a converter for any JAX program needs more packages than bertjax itself and pins their versions.
"""

from typing import IO, Any

import numpy as np
from etils import epath

from bertjax.errors import check, needs_extra
from bertjax.interop.programs.onnx.encoder import encoder
from bertjax.interop.programs.onnx.graph import Graph, weights_by_layer
from bertjax.interop.programs.onnx.heads import add_outputs
from bertjax.interop.programs.serving import INPUTS, ServedModel, new_program
from bertjax.storage import write_whole, written_whole

PROGRAM = "model.onnx"
WEIGHTS = "model.onnx.data"
# Versions: https://github.com/onnx/onnx/blob/main/docs/Versioning.md.
OPSET = 20  # the first with Gelu
IR_VERSION = 9  # of the release that brought this opset, so that runtimes of that age read the file
MAX_FILE_BYTES = 1_900_000_000  # a protobuf file has at most 2 GiB, and the nodes need some of it
MAX_INLINE_BYTES = 1024  # shapes and scalars stay in the graph, where checkers look for them


def export_onnx(
    model: ServedModel, folder: epath.PathLike, *, max_file_bytes: int = MAX_FILE_BYTES
) -> None:
    """Write `model.onnx` to `folder`; if the weights are large, write `model.onnx.data` before it.

    The weights are large if they have more than `max_file_bytes` together. The inputs are int32
    [b, l] tensors named `input_ids`, `input_mask` and `segment_ids`; a model without token types
    does not read the last. The outputs are float32 tensors named as in `model.outputs`. Both b and
    l may vary, and onnxruntime refuses rows longer than `config.max_length`. The graph computes in
    float32 whatever `config.dtype` is, because few runtimes have these operators in bfloat16.
    Raises `UserError` if the package `onnx` is missing, if the model has parameters that the graph
    does not know, and if `folder` already has a `model.onnx`.
    """
    config = model.config
    with needs_extra("onnx"):
        from onnx import TensorProto, helper
    graph = Graph(config, weights_by_layer(model.params))
    add_outputs(graph, encoder(graph), model)
    # The model may have a part that nobody has written as nodes: the graph would compute something
    # else, and no runtime would say so.
    unknown = graph.unknown()
    check(
        not unknown,
        where="format onnx",
        found=f"parameters {', '.join(unknown[:3])}",
        expected="a model without them: the graph has no such part",
    )
    path = new_program(folder, PROGRAM)
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
        helper.make_graph(graph.nodes, "encoder", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="bertjax",
    )
    # The graph itself does not state a limit for its free axes, so the file's properties do.
    helper.set_model_props(program, {"max_length": str(config.max_length)})
    write_whole(path / PROGRAM, program.SerializeToString())


def _tensors(graph: Graph, file: IO[bytes] | None) -> list[Any]:
    return [_tensor(name, array, file) for name, array in graph.used.items()]


def _tensor(name: str, array: np.ndarray, file: IO[bytes] | None) -> Any:
    """Return an `onnx.TensorProto` that holds the array or refers to it in `file`.

    An array of more than `MAX_INLINE_BYTES` is appended to `file`, if there is one.
    """
    from onnx import TensorProto, numpy_helper

    # All weights are float32; tables of distances, which have other types, are never large.
    if file is None or array.nbytes <= MAX_INLINE_BYTES or array.dtype != np.float32:
        return numpy_helper.from_array(array, name)
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
    # See https://github.com/onnx/onnx/blob/main/docs/ExternalData.md.
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": WEIGHTS, "offset": file.tell(), "length": array.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    # ONNX keeps raw data little-endian on every machine.
    file.write(np.ascontiguousarray(array, "<f4").tobytes())
    return tensor
