"""The one function that exported programs compute, with its inputs and outputs."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from bertjax.config import Head, ModelConfig
from bertjax.errors import check, disk_errors
from bertjax.given_files import place_of
from bertjax.interop.checkpoints.families.family import TASK_HEAD
from bertjax.interop.checkpoints.tensor_mapping import without_groups
from bertjax.model import functional
from bertjax.model.linear_head import linear
from bertjax.tasks.task_head import TaskHead

INPUTS = ("input_ids", "input_mask", "segment_ids")
"""Names of the inputs, all int32 [b, l], in this order."""

# The group of parameters that each output needs beside those of the encoder.
_GROUP_OF_OUTPUT = {
    "hidden": None,
    "pooled": "pooler",
    "mlm_logits": "mlm",
    # This output needs the pooler as well: see `needs_sentence_vectors`.
    "nsp_logits": "nsp",
    "logits": TASK_HEAD,
}

OutputShape = tuple[str | int, ...]
"""Axes of an output: a size each, or "b" and "l" for batch and length, which may vary."""
ServingFunction = Callable[[functional.Params, Array, Array, Array], dict[str, Array]]


@dataclass(frozen=True)
class ServedModel:
    """A model and the outputs that its exported program computes; see `served_model`."""

    config: ModelConfig
    params: Mapping[str, Any]
    """The parameters that the outputs need, by their path, such as `pooler/kernel`: arrays.
    For ONNX those of the layers may be lists of arrays of different sizes (pruning by layer).
    """
    outputs: Mapping[str, OutputShape]
    """Shape of each output by its name; all outputs are float32."""
    head: TaskHead | None
    """The fine-tuned head that computes `logits`, if the model has one."""
    read: Callable[[functional.Params], functional.Params] = dict
    """Function from flat parameters, as `params` has them, to those of the model.

    Some of these may be a `Matrix`, made of several arrays.
    """

    def with_read(self, read: Callable[[functional.Params], functional.Params]) -> "ServedModel":
        """Return the model with another function that reads its parameters."""
        return dataclasses.replace(self, read=read)

    def with_params(self, params: Mapping[str, Any]) -> "ServedModel":
        """Return the model with other stored parameters."""
        return dataclasses.replace(self, params=params)


def served_model(
    config: ModelConfig,
    params: functional.Params,
    outputs: Sequence[str] = (),
    head: TaskHead | None = None,
) -> ServedModel:
    """Return the part of a model that a program with `outputs` needs.

    The parameters of a `head` are at `params["task_head"]`. Raises the errors of `choose_outputs`.
    """
    shapes = choose_outputs(config, outputs, head)
    return ServedModel(config, _needed_params(config, params, shapes, head), shapes, head)


def choose_outputs(
    config: ModelConfig, outputs: Sequence[str] = (), head: TaskHead | None = None
) -> dict[str, OutputShape]:
    """Return the shape of each output by its name.

    `outputs` may name `hidden` [b, l, D], `pooled` [b, D], `mlm_logits` [b, l, V] and `nsp_logits`
    [b, 2]. With a fine-tuned `head` it may also name `logits`: [b, C], or [b, l, C] if the head is
    on every token. If `outputs` is empty, the output is `logits` with a `head`; without one it is
    `hidden`, and also `pooled` if the model has a pooler. Raises `UserError` for a name that is
    unknown, that is given twice, or whose head the model lacks.
    """
    shapes: dict[str, OutputShape] = {
        "hidden": ("b", "l", config.hidden_size),
        "pooled": ("b", config.hidden_size),
        "mlm_logits": ("b", "l", config.vocab_size),
        "nsp_logits": ("b", 2),
    }
    if head is not None:
        shapes["logits"] = ("b", "l", head.outputs) if head.on_tokens else ("b", head.outputs)
    names = tuple(outputs) or _default_outputs(config, head)
    check(
        len(set(names)) == len(names), where="outputs", found=", ".join(names), expected="each once"
    )
    for name in names:
        check(
            name in shapes,
            where="outputs",
            found=repr(name),
            expected=f"one of {', '.join(shapes)}",
        )
        group = _GROUP_OF_OUTPUT[name]
        check(
            group in (None, TASK_HEAD, *config.heads),
            where=f"outputs: {name}",
            found="a model without it",
            expected=f"{group} among its model.heads",
        )
    return {name: shapes[name] for name in names}


def _default_outputs(config: ModelConfig, head: TaskHead | None) -> tuple[str, ...]:
    if head is not None:
        return ("logits",)
    if "pooler" in config.heads:
        return ("hidden", "pooled")
    return ("hidden",)


def serving_function(model: ServedModel) -> ServingFunction:
    """Return the pure function (params, input_ids, input_mask, segment_ids) -> outputs by name.

    `params` are flat, like `model.params`; the other three are int32 [b, l], as for
    `functional.encode`. The function has no dropout, computes in `config.dtype` and returns
    float32.
    """
    # Rematerialization saves memory in the backward pass, which an exported program does not have.
    config = dataclasses.replace(model.config, remat="none")
    names, head = tuple(model.outputs), model.head

    def serve(
        params: functional.Params, input_ids: Array, input_mask: Array, segment_ids: Array
    ) -> dict[str, Array]:
        params = unflatten_dict(model.read(params), sep="/")
        batch = {"input_ids": input_ids, "input_mask": input_mask, "segment_ids": segment_ids}
        hidden = functional.encode(config, params, batch).hidden_BxLxD
        computed = {"hidden": hidden}
        if needs_sentence_vectors(names, head):
            computed["pooled"] = functional.pool(config, params, hidden, input_mask=input_mask)
        if "mlm_logits" in names:
            computed["mlm_logits"] = functional.mlm_logits(config, params, hidden)
        if "nsp_logits" in names:
            computed["nsp_logits"] = functional.nsp_logits(config, params, computed["pooled"])
        if head is not None and "logits" in names:
            if head.on_tokens:
                x = functional.pool_tokens(config, params, hidden)
            else:
                x = computed["pooled"]
            computed["logits"] = linear(config, params[TASK_HEAD], x)
        return {name: computed[name].astype(jnp.float32) for name in names}

    return serve


def _needed_params(
    config: ModelConfig, params: functional.Params, outputs: Collection[str], head: TaskHead | None
) -> dict[str, np.ndarray]:
    """Return the parameters that `outputs` need, by their path, as numpy arrays."""
    used = {_GROUP_OF_OUTPUT[name] for name in outputs}
    unused = {*get_args(Head), TASK_HEAD} - used
    on_tokens = head is not None and head.on_tokens and config.token_pooler
    if needs_sentence_vectors(outputs, head) or (on_tokens and "logits" in outputs):
        unused.discard("pooler")
    leaves = flatten_dict(without_groups(params, unused), sep="/")
    return {path: np.asarray(leaf) for path, leaf in jax.device_get(leaves).items()}


def needs_sentence_vectors(outputs: Collection[str], head: TaskHead | None) -> bool:
    """Return whether one of `outputs` is computed from the sentence vector."""
    on_pooled = head is not None and not head.on_tokens and "logits" in outputs
    return on_pooled or "pooled" in outputs or "nsp_logits" in outputs


def new_program(folder: epath.PathLike, file: str) -> epath.Path:
    """Return the path of `folder` for a new program; create the folder if it does not exist.

    `file` is the file that the export writes last. Raises `UserError` if it exists already.
    """
    path = place_of(folder)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    check(
        not (path / file).exists(),
        where=str(path / file),
        found="a file",
        expected="none: a program is not written over another",
    )
    return path
