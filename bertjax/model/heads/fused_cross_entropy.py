"""Softmax cross-entropy of masked words with the TPU kernels that keep logits on the chip."""

import jax
from jax import Array

from bertjax.model.heads.cross_entropy import CrossEntropy, cross_entropy_sums
from bertjax.model.kernels import tpu_cross_entropy as kernel
from bertjax.model.layout import Layout


def fused_cross_entropy(
    x_BxPxE: Array,
    table_VxE: Array,
    bias_V: Array,
    labels_BxP: Array,
    weights_BxP: Array,
    *,
    z_loss: float,
    layout: Layout,
    interpret: kernel.Interpret = False,
) -> CrossEntropy:
    """Return `weighted_cross_entropy` of the logits `x @ table.T + bias`.

    `table` and `bias` are float32. Matrix products and the gradients of their factors are in the
    dtype of `x`, with float32 sums. Each device computes its own rows with the whole table. There
    is no second derivative. `interpret` runs the kernels in Pallas's interpreter.
    """
    static = kernel.Static(interpret)

    def local(x: Array, table: Array, read: Array, bias: Array, labels: Array) -> Array:
        x_NxE = x.reshape(-1, x.shape[-1])
        found = kernel.tpu_cross_entropy(static, x_NxE, table, read, bias, labels.reshape(-1))
        return found.reshape(-1, *labels.shape)

    whole = (None, None)
    run = layout.per_device(
        local,
        [("batch", None, None), whole, whole, (None,), ("batch", None)],
        (None, "batch", None),
    )
    table = table_VxE.astype(x_BxPxE.dtype)
    # Devices that each have a part of the width send it to the others in the smaller dtype.
    # Otherwise the kernels round it, tile by tile, which saves a pass over memory.
    read = table if layout.parts("embed") > 1 else table_VxE
    found = run(x_BxPxE, table, jax.lax.stop_gradient(read), bias_V, labels_BxP)
    log_total, picked, highest = found
    return cross_entropy_sums(log_total, picked, highest, weights_BxP, z_loss)
