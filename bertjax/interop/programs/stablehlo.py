"""The model as a StableHLO program of `jax.export`, for any batch and length.

The parameters are an argument and lie beside the program. As constants inside it they would be in
memory once more for each shape that is compiled (BERT base on two CPU cores: 0.8 GB and 11 s a
shape instead of 1 s, and 435 MB of program instead of 30 kB), and beyond 2 GB the program's file
format ends.

To run it, with jax alone:

    exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
    params = jax.device_put(dict(numpy.load("params.npz")))
    outputs = jax.jit(exported.call)(params, input_ids, input_mask, segment_ids)
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence

import jax
import jaxlib
import numpy as np
from etils import epath
from jax import export
from jax.extend.mlir import ir, passmanager
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import mlir

from bertjax.config import ModelConfig
from bertjax.interop.programs.serving import (
    INPUTS,
    choose_outputs,
    new_program,
    served_params,
    serving_function,
)
from bertjax.model.functional import Params
from bertjax.storage import write_whole, written_whole
from bertjax.tasks.task_head import TaskHead

PROGRAM = "model.stablehlo"
PARAMS = "params.npz"
SIGNATURE = "signature.json"
PLATFORMS = ("cpu", "cuda", "tpu")
# jax writes the version of four weeks ago, which neither an older jax nor TensorFlow's latest
# release reads.
STABLEHLO_VERSION = "1.0.0"


def export_stablehlo(
    config: ModelConfig,
    params: Params,
    folder: epath.PathLike,
    outputs: Sequence[str] = (),
    head: TaskHead | None = None,
) -> None:
    """Write `params.npz`, `model.stablehlo` and, last, `signature.json` to `folder`.

    The program takes (params, input_ids, input_mask, segment_ids), the parameters as a flat dict by
    their path, the others int32 [b, l], and gives a dict of float32 arrays; `signature.json` says
    so to programs. It runs on CPU, CUDA and TPU; for rows longer than `config.max_length` jax
    raises a ValueError about shapes. `outputs` and `head` as for `serving.choose_outputs`. Raises
    `UserError` for those, and where `folder` has a program in it.
    """
    shapes = choose_outputs(config, outputs, head)
    path = new_program(folder, SIGNATURE)
    arrays = served_params(params, shapes, head)
    exported = export_program(config, arrays, tuple(shapes), head)
    signature = {
        "program": PROGRAM,
        "params": PARAMS,
        "inputs": [{"name": name, "dtype": "int32", "shape": ["b", "l"]} for name in INPUTS],
        "outputs": [
            {"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()
        ],
        "max_length": config.max_length,
        "platforms": exported.platforms,
        "calling_convention_version": exported.calling_convention_version,
        "versions": {
            "stablehlo": STABLEHLO_VERSION,
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
        },
    }
    with written_whole(path / PARAMS) as file:
        # numpy's own arguments are named otherwise
        np.savez(file, **arrays)  # type: ignore[arg-type]
    write_whole(path / PROGRAM, bytes(exported.serialize()))
    write_whole(path / SIGNATURE, (json.dumps(signature, indent=2) + "\n").encode())


def export_program(
    config: ModelConfig,
    params: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    head: TaskHead | None,
) -> export.Exported:
    """`serving_function` with symbolic b and l, in an old StableHLO; `params` are flat, and only
    their shapes count.

    The length has its limit as a constraint: jax clamps gathers, so that a longer row would give
    wrong numbers.
    """
    shape = export.symbolic_shape("b, l", constraints=[f"l <= {config.max_length}"])
    inputs = [jax.ShapeDtypeStruct(shape, np.int32) for _ in INPUTS]
    abstract = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in params.items()
    }
    exported = export.export(jax.jit(serving_function(config, outputs, head)), platforms=PLATFORMS)(
        abstract, *inputs
    )
    return dataclasses.replace(
        exported, mlir_module_serialized=_old_stablehlo(exported.mlir_module())
    )


def _old_stablehlo(text: str) -> bytes:
    """A program for older runtimes: without composite operators, which they do not take with free
    shapes.
    """
    stablehlo.register_stablehlo_passes()
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        passes = "builtin.module(func.func(stablehlo-legalize-composite-to-call))"
        passmanager.PassManager.parse(passes).run(module.operation)
        plain = module.operation.get_asm(enable_debug_info=False)  # that is paths of this machine
    return stablehlo.serialize_portable_artifact_str(str(plain), STABLEHLO_VERSION)
