"""The one function that exported programs compute, and its inputs and outputs."""

import dataclasses
from collections.abc import Callable, Collection, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from bertjax.config import ModelConfig
from bertjax.errors import check, disk_errors
from bertjax.interop.checkpoints.tensor_names import TASK_HEAD
from bertjax.model import functional
from bertjax.model.linear_head import linear
from bertjax.tasks.task_head import TaskHead

INPUTS = ("input_ids", "input_mask", "segment_ids")
"""All int32 [b, l], in this order."""
_GROUPS = {
    "hidden": None,
    "pooled": "pooler",
    "mlm_logits": "mlm",
    "nsp_logits": "nsp",
    "logits": TASK_HEAD,
}

Serving = Callable[[functional.Params, Array, Array, Array], dict[str, Array]]


def choose_outputs(
    config: ModelConfig, outputs: Sequence[str] = (), head: TaskHead | None = None
) -> dict[str, tuple[str | int, ...]]:
    """The shape of each output by its name, all float32, "b" and "l" standing for batch and length.

    `outputs` are of `hidden` [b, l, D], `pooled` [b, D], `mlm_logits` [b, l, V] and `nsp_logits`
    [b, 2], and of a fine-tuned model `logits` [b, C], or [b, l, C] of a head on every token; empty:
    `logits` where there is a `head`, else `hidden`, and `pooled` where the model has a pooler.
    Raises `UserError` for a name unknown or given twice, or one whose head the model lacks.
    """
    shapes: dict[str, tuple[str | int, ...]] = {
        "hidden": ("b", "l", config.hidden_size),
        "pooled": ("b", config.hidden_size),
        "mlm_logits": ("b", "l", config.vocab_size),
        "nsp_logits": ("b", 2),
    }
    if head:
        shapes["logits"] = ("b", "l", head.outputs) if head.on_tokens else ("b", head.outputs)
    usual = (
        ("logits",) if head else ("hidden", "pooled") if "pooler" in config.heads else ("hidden",)
    )
    names = tuple(outputs) or usual
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
        group = _GROUPS[name]
        check(
            group in (None, TASK_HEAD, *config.heads),
            where=f"outputs: {name}",
            found="a model without it",
            expected=f"{group} among its model.heads",
        )
    return {name: shapes[name] for name in names}


def serving_function(
    config: ModelConfig, outputs: Sequence[str] = (), head: TaskHead | None = None
) -> Serving:
    """The pure function (params, input_ids, input_mask, segment_ids) -> outputs by name, without
    dropout.

    The ids are int32 [b, l], as `functional.encode` takes them; `params` are nested, or flat by
    their path. It computes in `config.dtype` and gives float32; for the outputs' names, shapes and
    errors see `choose_outputs`.
    """
    names = choose_outputs(config, outputs, head)
    config = dataclasses.replace(config, remat="none")

    def serve(
        params: functional.Params, input_ids: Array, input_mask: Array, segment_ids: Array
    ) -> dict[str, Array]:
        params = unflatten_dict(params, sep="/") if any("/" in name for name in params) else params
        batch = {"input_ids": input_ids, "input_mask": input_mask, "segment_ids": segment_ids}
        hidden = functional.encode(config, params, batch).hidden_BxLxD
        found = {"hidden": hidden}
        if needs_pooler(names, head):
            found["pooled"] = functional.pool(config, params, hidden)
        if "mlm_logits" in names:
            found["mlm_logits"] = functional.mlm_logits(config, params, hidden)
        if "nsp_logits" in names:
            found["nsp_logits"] = functional.nsp_logits(config, params, found["pooled"])
        if head and "logits" in names:
            found["logits"] = linear(
                config, params[TASK_HEAD], hidden if head.on_tokens else found["pooled"]
            )
        return {name: found[name].astype(jnp.float32) for name in names}

    return serve


def served_params(
    params: functional.Params, outputs: Collection[str], head: TaskHead | None = None
) -> dict[str, np.ndarray]:
    """The parameters that `outputs` need, by their path, `/` between the names, as numpy arrays."""
    unused = {"pooler", "mlm", "nsp", TASK_HEAD} - {_GROUPS[name] for name in outputs}
    if needs_pooler(outputs, head):
        unused.discard("pooler")
    leaves = flatten_dict(
        {name: value for name, value in params.items() if name not in unused}, sep="/"
    )
    return {path: np.asarray(jax.device_get(leaf)) for path, leaf in leaves.items()}


def new_program(folder: epath.PathLike, file: str) -> epath.Path:
    """The folder, made if absent; `UserError` where it has a `file`, the one that an export writes
    last.
    """
    path = epath.Path(folder)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    check(
        not (path / file).exists(),
        where=str(path / file),
        found="a file",
        expected="none: a program is not written over another",
    )
    return path


def needs_pooler(outputs: Collection[str], head: TaskHead | None) -> bool:
    """Whether one of `outputs` is made of the sentence vector."""
    on_pooled = head is not None and not head.on_tokens and "logits" in outputs
    return on_pooled or "pooled" in outputs or "nsp_logits" in outputs
