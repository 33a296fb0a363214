"""Rows of tokens for the models of this folder, and noise for their parameters."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Outputs(NamedTuple):
    """What a model computes of a batch."""

    hidden_BxLxD: Tensor
    logits_BxLxV: Tensor


def visible_tokens(inputs_BxL: Tensor, causal: bool = False) -> Tensor:
    """Return true for each pair of a token and one that it attends to, as [B, L, L].

    `inputs_BxL` has the number of the input that each token belongs to; 0 is padding. Padding
    attends to padding: so no softmax is of nothing.
    """
    visible_BxLxL = inputs_BxL[:, :, None] == inputs_BxL[:, None, :]
    if causal:
        visible_BxLxL = visible_BxLxL.tril()
    return visible_BxLxL


def positions_within(inputs_BxL: Tensor) -> Tensor:
    """Return the positions of tokens, counted from the start of their input.

    Attention with rotary positions depends on differences only; but in float32 the angles of small
    positions are rounded less.
    """
    positions_BxL = torch.zeros_like(inputs_BxL)
    for column in range(1, inputs_BxL.shape[1]):
        goes_on = inputs_BxL[:, column] == inputs_BxL[:, column - 1]
        positions_BxL[:, column] = (positions_BxL[:, column - 1] + 1) * goes_on
    return positions_BxL


def add_noise(model: nn.Module, seed: int, scale: float = 0.1) -> None:
    """Move every parameter, so that none has its initial value, 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise * scale)
