"""Quantization of an ONNX file by ONNX Runtime's own quantizer."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.compression.quantize.graph_weights import Weight
from bertjax.compression.quantize.options import QuantizeOptions
from bertjax.errors import UserError, disk_errors, one_line

OPSET_OF_INT4, IR_OF_INT4 = 21, 10
"""https://github.com/onnx/onnx/blob/main/docs/Versioning.md"""
Rows = Sequence[Mapping[str, np.ndarray]]
"""Inputs of a program, one batch after another."""


def quantize_file(
    source: Path,
    target: Path,
    options: QuantizeOptions,
    weights: Sequence[Weight],
    *,
    calibration: Rows = (),
    external: bool = False,
) -> None:
    """Write the file `source` with these `weights` as integers to `target`.

    `calibration` are the rows that static ranges are measured on. With `external` the weights lie
    in a file of their own, because a protobuf file has at most 2 GiB. Raises `UserError` for what
    the quantizer refuses.
    """
    nodes = [node for weight in weights for node in weight.nodes]
    with _quiet(), disk_errors(target), _refused(source):
        if options.activations == "none":
            _weights_alone(source, target, options, weights, external)
        elif options.activations == "dynamic":
            _dynamic(source, target, options, nodes, external)
        else:
            _static(source, target, options, nodes, calibration, external)


def _dynamic(
    source: Path, target: Path, options: QuantizeOptions, nodes: list[str], external: bool
) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul", "Gather"],
        nodes_to_quantize=nodes,
        per_channel=options.granularity == "channel",
        weight_type=QuantType.QInt8,
        use_external_data_format=external,
    )


def _static(
    source: Path,
    target: Path,
    options: QuantizeOptions,
    nodes: list[str],
    calibration: Rows,
    external: bool,
) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        """The rows, one batch a call, and None after the last."""

        def __init__(self) -> None:
            self._rows: Iterator[Mapping[str, np.ndarray]] = iter(calibration)

        def get_next(self) -> Any:
            return next(self._rows, None)

    quantize_static(
        source,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gather"],
        nodes_to_quantize=nodes,
        per_channel=options.granularity == "channel",
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=external,
        extra_options={
            "MatMulConstBOnly": True,
            # What follows a product, a bias and a norm, is computed in float anyway: its result
            # would be rounded to 8 bits for nothing.
            "OpTypesToExcludeOutputQuantization": ["MatMul"],
        },
    )


def _weights_alone(
    source: Path,
    target: Path,
    options: QuantizeOptions,
    weights: Sequence[Weight],
    external: bool,
) -> None:
    """Store integers and their scales, which a `DequantizeLinear` multiplies before each product.

    Standard operators, so any runtime of ONNX reads the file. Tables of embeddings are quantized
    as for dynamic activations: the rows that are looked up are few, and become floats after that.
    Tables have 8 bits also beside matrices of 4, which ids cannot be looked up in (`Gather`).
    """
    import onnx

    tables = [weight for weight in weights if weight.is_table]
    nodes = [node for weight in tables for node in weight.nodes]
    if tables:
        _dynamic(source, target, options, nodes, external)
    model = onnx.load(str(target if tables else source))
    matrices = {weight.name for weight in weights if not weight.is_table}
    new_nodes = []
    for tensor in [each for each in model.graph.initializer if each.name in matrices]:
        model.graph.initializer.remove(tensor)
        new_nodes.append(_add_integers(model.graph, tensor, options))
    nodes_before = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*new_nodes, *nodes_before])
    if options.bits == 4:
        _allow_four_bits(model)
    onnx.save(
        model,
        str(target),
        save_as_external_data=external,
        location=f"{target.name}.data" if external else None,
    )


def _allow_four_bits(model: Any) -> None:
    """State the versions that have integers of 4 bits; they only add types to older operators."""
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = max(opset.version, OPSET_OF_INT4)
    model.ir_version = max(model.ir_version, IR_OF_INT4)


def _add_integers(graph: Any, tensor: Any, options: QuantizeOptions) -> Any:
    """Add a matrix as integers and scales; return the node that makes floats of them."""
    import ml_dtypes
    from onnx import helper, numpy_helper

    array = numpy_helper.to_array(tensor)
    axis = 0 if options.granularity == "channel" else None
    integers, scales = symmetric_integers(array, axis, options.bits)
    if options.bits == 4:
        integers = integers.astype(ml_dtypes.int4)  # two in a byte of the file
    names = [f"{tensor.name}_quantized", f"{tensor.name}_scale"]
    graph.initializer.append(numpy_helper.from_array(integers, names[0]))
    graph.initializer.append(numpy_helper.from_array(scales, names[1]))
    return helper.make_node(
        "DequantizeLinear", names, [tensor.name], name=f"{tensor.name}_float", axis=1
    )


def symmetric_integers(
    array: np.ndarray, axis: int | None, bits: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Return an array as integers of `bits` bits, int8, and the float32 scales to multiply with.

    The largest magnitude along `axis` becomes the largest integer; with `axis` None there is one
    scale, of the whole array.
    """
    largest = np.max(np.abs(array), axis=axis)
    limit = 2 ** (bits - 1) - 1
    # A channel of zeros has any scale.
    scales = np.where(largest > 0, largest / limit, 1).astype(np.float32)
    along = scales if axis is None else np.expand_dims(scales, axis)
    return np.rint(array / along).clip(-limit, limit).astype(np.int8), scales


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's advice, which is about other models, off the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


@contextmanager
def _refused(source: Path) -> Iterator[None]:
    """Turn what the quantizer raises for a file into a `UserError`."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(
            f"{source.name}: found a graph that ONNX Runtime's quantizer refuses ({reason}), "
            "expected one that it takes"
        ) from error
