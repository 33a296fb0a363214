"""Export to a TensorFlow SavedModel, for any batch and length.

One TensorFlow operator, `XlaCallModule`, runs the StableHLO program of `stablehlo.py`. `jax2tf`
does the same, but it writes the StableHLO version of its jax, which TensorFlow cannot always read:
TensorFlow 2.21 has StableHLO 1.13, jax 0.12 writes 1.18.
"""

import jax
from etils import epath

from bertjax.errors import needs_extra
from bertjax.interop.programs.serving import INPUTS, OutputShape, ServedModel, new_program
from bertjax.interop.programs.stablehlo import export_program
from bertjax.interop.tensorflow_files import tensorflow_output

PROGRAM = "saved_model.pb"


def export_saved_model(model: ServedModel, folder: epath.PathLike) -> None:
    """Write a SavedModel to `folder`, `saved_model.pb` last, with the signature `serving_default`.

    The signature takes int32 [b, l] tensors named `input_ids`, `input_mask` and `segment_ids`, and
    returns float32 tensors by name. TensorFlow raises an error for a row longer than
    `config.max_length`. The model is one XLA program for CPU, CUDA and TPU, compiled once for each
    shape; its parameters are variables. Raises `UserError` if `folder` already has a SavedModel,
    and if the disk is full.
    """
    with needs_extra("data"):
        import tensorflow as tf
        from tensorflow.compiler.tf2xla.python.xla import call_module  # not in tf.raw_ops
    path = new_program(folder, PROGRAM)
    exported = export_program(model)
    module = tf.Module()
    # TensorFlow saves only variables that it can reach from the module, here as its attribute.
    module.params = {name: tf.Variable(array, name=name) for name, array in model.params.items()}
    names = sorted(model.outputs)  # jax returns a dict in the order of its sorted keys
    shapes = [_static_shape(model.outputs[name]) for name in names]

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, None], tf.int32, name) for name in INPUTS],
    )
    def serve(
        input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        # `dict`, because TensorFlow wraps a module's dicts in a type that JAX takes for a leaf.
        arguments = jax.tree.leaves((dict(module.params), input_ids, input_mask, segment_ids))
        results = call_module(
            # jax leaves out arguments that the program does not read.
            [arguments[i] for i in exported.module_kept_var_idx],
            version=exported.calling_convention_version,
            module=exported.mlir_module_serialized,
            Tout=[tf.float32] * len(names),
            Sout=shapes,
            # `XlaCallModule` needs the names in capitals: CPU, CUDA and TPU.
            platforms=[platform.upper() for platform in exported.platforms],
        )
        return dict(zip(names, results, strict=True))

    module.serve = serve
    with tensorflow_output(path, last=PROGRAM) as local:
        tf.saved_model.save(module, str(local), signatures={"serving_default": serve})


def _static_shape(shape: OutputShape) -> list[int | None]:
    """Return the sizes of the axes as TensorFlow writes them: None for a free axis."""
    return [axis if isinstance(axis, int) else None for axis in shape]
