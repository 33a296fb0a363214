"""Export to a StableHLO program of `jax.export`, for any batch and length.

The parameters are an argument of the program and lie in a file beside it. As constants inside the
program they would be in memory once more for each shape that is compiled. For BERT base on two CPU
cores, each shape would take 0.8 GB more, and 11 s instead of 1 s; the program would have 435 MB
instead of 30 kB. The program's file format also has a limit of 2 GB.

To run it, with jax alone:

    exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
    params = jax.device_put(dict(numpy.load("params.npz")))
    outputs = jax.jit(exported.call)(params, input_ids, input_mask, segment_ids)
"""

import dataclasses
import json

import jax
import jaxlib
import numpy as np
from etils import epath
from jax import export
from jax.extend.mlir import ir, passmanager
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import mlir

from bertjax.interop.programs.serving import (
    INPUTS,
    ServedModel,
    new_program,
    serving_function,
)
from bertjax.storage import write_whole, written_whole

PROGRAM = "model.stablehlo"
PARAMS = "params.npz"
SIGNATURE = "signature.json"
PLATFORMS = ("cpu", "cuda", "tpu")
# jax itself writes the StableHLO version of four weeks ago, which neither an older jax nor
# TensorFlow's latest release reads.
# Which older versions a later one must read: https://openxla.org/stablehlo/compatibility.
STABLEHLO_VERSION = "1.0.0"


def export_stablehlo(model: ServedModel, folder: epath.PathLike) -> None:
    """Write `params.npz`, `model.stablehlo` and, last, `signature.json` to `folder`.

    The program takes (params, input_ids, input_mask, segment_ids) and returns a dict of float32
    arrays. `params` is a flat dict from path to array; the other three are int32 [b, l].
    `signature.json` describes this for other programs. The exported program runs on CPU, CUDA and
    TPU; for rows longer than `config.max_length` jax raises a ValueError about shapes. Raises
    `UserError` if `folder` already has a program.
    """
    path = new_program(folder, SIGNATURE)
    exported = export_program(model)
    signature = {
        "program": PROGRAM,
        "params": PARAMS,
        "inputs": [{"name": name, "dtype": "int32", "shape": ["b", "l"]} for name in INPUTS],
        "outputs": [
            {"name": name, "dtype": "float32", "shape": shape}
            for name, shape in model.outputs.items()
        ],
        "max_length": model.config.max_length,
        "platforms": exported.platforms,
        "calling_convention_version": exported.calling_convention_version,
        "versions": {
            "stablehlo": STABLEHLO_VERSION,
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
        },
    }
    with written_whole(path / PARAMS) as file:
        # Arrays are keyword arguments: no path is `file` or `allow_pickle`, which savez defines.
        np.savez(file, **model.params)
    write_whole(path / PROGRAM, bytes(exported.serialize()))
    write_whole(path / SIGNATURE, (json.dumps(signature, indent=2) + "\n").encode())


def export_program(model: ServedModel) -> export.Exported:
    """Return `serving_function` exported with symbolic b and l, as `STABLEHLO_VERSION`.

    The parameters are its first argument, so the program has only their shapes and types. The
    constraint l <= `max_length` makes a longer row an error. Without it such a row would get wrong
    numbers, because jax clamps the indices of a gather.
    """
    max_length = model.config.max_length
    shape = export.symbolic_shape("b, l", constraints=[f"l <= {max_length}"])
    inputs = [jax.ShapeDtypeStruct(shape, np.int32) for _ in INPUTS]
    params = {
        path: jax.ShapeDtypeStruct(array.shape, array.dtype) for path, array in model.params.items()
    }
    serve = jax.jit(serving_function(model))
    exported = export.export(serve, platforms=PLATFORMS)(params, *inputs)
    program = _old_stablehlo(exported.mlir_module())
    return dataclasses.replace(exported, mlir_module_serialized=program)


def _old_stablehlo(text: str) -> bytes:
    """Return the program as `STABLEHLO_VERSION`, without composite operators.

    Older runtimes do not accept composite operators with free shapes.
    """
    stablehlo.register_stablehlo_passes()
    # jax's own context, because it knows the dialects that occur in the text.
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        passes = "builtin.module(func.func(stablehlo-legalize-composite-to-call))"
        passmanager.PassManager.parse(passes).run(module.operation)
        # Debug information is left out, because it contains paths of this machine.
        plain = module.operation.get_asm(enable_debug_info=False)
    return stablehlo.serialize_portable_artifact_str(str(plain), STABLEHLO_VERSION)
