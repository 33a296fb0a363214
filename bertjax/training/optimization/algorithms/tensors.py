"""The tensors of a model, as optimizers treat them: which decay, and which layers are stacked."""

import math
from typing import Any

import jax

from bertjax.model.functional import Params

# Names of biases, and of the scale of layer norms. The original BERT excludes them from weight
# decay, and LAMB's authors from the trust ratio too.
# The weights of `layer_mix` decay: GPT-BERT's authors spare biases and layer norms alone.
NOT_DECAYED = ("bias", "scale")
# Below the first group a parameter's first axis counts layers, and that of the second sublayers.
STACKED = ("layers", "mix")


def decay_mask(params: Params) -> Params:
    """Return True for each parameter that weight decay applies to: all but biases and layer norms.

    Parameters are recognized by name and not by rank, because a bias is a matrix too when layers
    are stacked.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NOT_DECAYED, params)


def is_kernel_of_layers(path: Any) -> bool:
    """Return True for the path of a kernel of the encoder's layers, [N, in..., out...]."""
    names = [key.key for key in path]
    return names[:2] == ["encoder", "layers"] and names[-1] == "kernel"


def inputs_of(path: Any, kernels: jax.Array) -> int:
    """Return the number of inputs of kernels of the layers, [N, in..., out...]."""
    # All have one axis of inputs, but the last of attention has heads and their widths.
    axes = 2 if path[-2].key == "output" else 1
    return math.prod(kernels.shape[1 : 1 + axes])


def axes_of_a_tensor(path: Any, leaf: jax.Array) -> tuple[int, ...]:
    """Return the axes of one tensor of a parameter: all, or without that of the layers.

    Each layer of a stack is a tensor of its own, and so is each row of `layer_mix`, which is a
    vector of its own in the code of GPT-BERT's authors.
    """
    is_stacked = any(key.key in STACKED for key in path)
    return tuple(range(1 if is_stacked else 0, leaf.ndim))
