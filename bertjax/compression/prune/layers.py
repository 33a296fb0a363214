"""The choice of the layers that stay."""

from collections.abc import Callable, Iterable
from typing import Literal

import jax
import numpy as np

from bertjax.compression.prune.structure import cut, whole_layers
from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.model.functional import Params
from bertjax.types import Batch

LayerChoice = Literal["spread", "first", "loss"]
"""Which layers stay, if a number of them is given.

spread: evenly spaced from the first on, such as every second (arXiv 1910.01108). first: the first
ones, so that the last ones go. loss: those without which the loss grows most, measured by leaving
out each one alone.
"""
Loss = Callable[[ModelConfig, Params, Batch], jax.Array]
"""Loss of a model of any number of layers on a batch."""


def named_layers(text: str, config: ModelConfig) -> int | list[int]:
    """Return what `--layers` says: a number of layers, or the numbers of those that stay.

    Raises `UserError` for layers that the model does not have.

    >>> named_layers("6", ModelConfig()), named_layers("0,2,4", ModelConfig())
    (6, [0, 2, 4])
    """
    layers = config.num_hidden_layers
    parts = [part.strip() for part in text.split(",") if part.strip()]
    check(
        bool(parts) and all(part.isascii() and part.isdecimal() for part in parts),
        where="--layers",
        found=repr(text),
        expected="a number of layers such as 6, or the layers that stay, such as 0,2,4",
    )
    # More digits than the number of layers has are out of range; int() refuses 5,000 of them.
    numbers = [int(part[-9:]) if not part[:-9].strip("0") else layers + 1 for part in parts]
    if "," not in text:
        check(
            1 <= numbers[0] <= layers,
            where="--layers",
            found=text,
            expected=f"1 to {layers}, the layers of the model",
        )
        return numbers[0]
    check(
        numbers == sorted(set(numbers)) and numbers[-1] < layers,
        where="--layers",
        found=text,
        expected=f"ascending numbers from 0 to {layers - 1}, each once",
    )
    check(
        not config.share_layers,
        where="--layers",
        found=text,
        expected="a number of layers, because all layers of this model are one (share_layers)",
    )
    return numbers


def spread(layers: int, kept: int) -> np.ndarray:
    """Return `kept` of the numbers of layers, evenly spaced from 0 on, int64.

    >>> spread(12, 6).tolist(), spread(12, 5).tolist()
    ([0, 2, 4, 6, 8, 10], [0, 2, 4, 7, 9])
    """
    return np.arange(kept) * layers // kept


def kept_by_loss(
    config: ModelConfig, params: Params, kept: int, loss: Loss, batches: Iterable[Batch]
) -> np.ndarray:
    """Return the numbers of the layers whose absence alone makes the loss grow most.

    `loss` is measured for the model without each layer. Raises `UserError` where a layer cannot be
    left out.
    """
    losses = []
    batches = list(batches)
    for layer in range(config.num_hidden_layers):
        others = np.delete(np.arange(config.num_hidden_layers), layer)
        smaller, smaller_params = cut(config, params, whole_layers(config, others))
        measured = [float(loss(smaller, smaller_params, batch)) for batch in batches]
        losses.append(float(np.mean(measured)))
    order = np.argsort(-np.asarray(losses), kind="stable")
    return np.sort(order[:kept])
