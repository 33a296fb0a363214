"""The model as a TensorFlow SavedModel, for any batch and length.

The StableHLO program of `stablehlo.py` is called by one TensorFlow operator, `XlaCallModule`. That
is what `jax2tf` does too, but it writes the StableHLO of its jax, which TensorFlow does not always
read: TensorFlow 2.21 has StableHLO 1.13, jax 0.12 writes 1.18.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
from etils import epath

from bertjax.config import ModelConfig
from bertjax.errors import UserError, disk_errors
from bertjax.interop.programs.serving import INPUTS, choose_outputs, new_program, served_params
from bertjax.interop.programs.stablehlo import export_program
from bertjax.model.functional import Params
from bertjax.storage import written_whole
from bertjax.tasks.task_head import TaskHead

PROGRAM = "saved_model.pb"


def export_saved_model(
    config: ModelConfig,
    params: Params,
    folder: epath.PathLike,
    outputs: Sequence[str] = (),
    head: TaskHead | None = None,
) -> None:
    """Write a SavedModel to `folder`, `saved_model.pb` last, with the signature `serving_default`.

    That takes int32 [b, l] tensors named `input_ids`, `input_mask` and `segment_ids`, and gives
    float32 ones by name; a row longer than `config.max_length` is an error of TensorFlow. It is one
    XLA program, compiled once for each shape, for CPU, CUDA and TPU; the parameters are variables.
    `outputs` and `head` as for `serving.choose_outputs`. Raises `UserError` for those, where
    `folder` has a SavedModel in it, and where the disk is full.
    """
    shapes = choose_outputs(config, outputs, head)
    path = new_program(folder, PROGRAM)
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python.xla import call_module  # not in tf.raw_ops

    arrays = served_params(params, shapes, head)
    exported = export_program(config, arrays, tuple(shapes), head)
    module = tf.Module()
    module.params = {name: tf.Variable(array, name=name) for name, array in arrays.items()}
    specs = [tf.TensorSpec([None, None], tf.int32, name) for name in INPUTS]
    order = sorted(shapes)  # as jax orders a dict

    @tf.function(autograph=False, input_signature=specs)
    def serve(
        input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        arguments = jax.tree.leaves((dict(module.params), input_ids, input_mask, segment_ids))
        results = call_module(
            [arguments[i] for i in exported.module_kept_var_idx],
            version=exported.calling_convention_version,
            module=exported.mlir_module_serialized,
            Tout=[tf.float32] * len(order),
            Sout=[[n if isinstance(n, int) else None for n in shapes[name]] for name in order],
            platforms=[platform.upper() for platform in exported.platforms],
        )
        return dict(zip(order, results, strict=True))

    module.serve = serve
    with disk_errors(path), tempfile.TemporaryDirectory() as local:
        try:
            tf.saved_model.save(module, local, signatures={"serving_default": serve})
        except tf.errors.OpError as error:
            raise UserError(
                f"{path}: cannot be written ({' '.join(str(error).split())[:200]})"
            ) from error
        _copy(Path(local), path)


def _copy(source: Path, target: epath.Path) -> None:
    """Every file of `source` to `target`, the one last that makes it a SavedModel."""
    files = [file for file in source.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: file.name == PROGRAM):
        place = target / str(file.relative_to(source))
        place.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as whole, written_whole(place) as copy:
            shutil.copyfileobj(whole, copy, 1 << 24)
