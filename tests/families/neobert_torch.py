"""NeoBERT (arXiv 2502.19587) in torch, with the names of its tensors on disk."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.families.rows import Outputs, positions_within, visible_tokens

ROTARY_BASE = 10_000.0  # the authors' configuration file has no field for it


@dataclass(frozen=True, kw_only=True)
class NeoBertConfig:
    """Sizes, by the names in the authors' configuration file; the defaults are its values."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 28
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_length: int = 4096
    norm_eps: float = 1e-5
    pad_token_id: int = 0

    @property
    def gated_size(self) -> int:
        """Width of the feed-forward sublayer: two thirds of `intermediate_size`, in eights."""
        return 8 * math.ceil(2 * self.intermediate_size // 3 / 8)


class NeoBert(nn.Module):
    """Encoder, and the linear layer that gives logits, whose weights are its own."""

    def __init__(self, config: NeoBertConfig):
        super().__init__()
        self.config = config
        self.model = Encoder(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, input_ids_BxL: Tensor, inputs_BxL: Tensor | None = None) -> Outputs:
        """Return the normalized output of the last layer, and the logits.

        `inputs_BxL`: see `visible_tokens`; one input fills each row by default.
        """
        if inputs_BxL is None:
            inputs_BxL = torch.ones_like(input_ids_BxL)
        hidden_BxLxD = self.model(input_ids_BxL, inputs_BxL)
        return Outputs(hidden_BxLxD, self.decoder(hidden_BxLxD))


class Encoder(nn.Module):
    """Embeddings, layers and the final norm."""

    def __init__(self, config: NeoBertConfig):
        super().__init__()
        self.encoder = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = range(config.num_hidden_layers)
        self.transformer_encoder = nn.ModuleList([Layer(config) for _ in layers])
        self.layer_norm = nn.RMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, input_ids_BxL: Tensor, inputs_BxL: Tensor) -> Tensor:
        x_BxLxD = self.encoder(input_ids_BxL)
        visible_BxLxL = visible_tokens(inputs_BxL)
        positions_BxL = positions_within(inputs_BxL)
        for layer in self.transformer_encoder:
            x_BxLxD = layer(x_BxLxD, visible_BxLxL, positions_BxL)
        return self.layer_norm(x_BxLxD)


class Layer(nn.Module):
    """Attention and feed-forward sublayer, each normalized before it."""

    def __init__(self, config: NeoBertConfig):
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)
        self.ffn = SwiGlu(width, config.gated_size)
        self.attention_norm = nn.RMSNorm(width, config.norm_eps)
        self.ffn_norm = nn.RMSNorm(width, config.norm_eps)

    def forward(self, x_BxLxD: Tensor, visible_BxLxL: Tensor, positions_BxL: Tensor) -> Tensor:
        x_BxLxD = x_BxLxD + self._attend(x_BxLxD, visible_BxLxL, positions_BxL)
        return x_BxLxD + self.ffn(self.ffn_norm(x_BxLxD))

    def _attend(self, x_BxLxD: Tensor, visible_BxLxL: Tensor, positions_BxL: Tensor) -> Tensor:
        # The rows of a head's queries, keys and values are side by side.
        packed_BxLxD = self.qkv(self.attention_norm(x_BxLxD))
        packed_BxLxHxK = packed_BxLxD.unflatten(-1, (self.heads, -1))
        query, key, value = packed_BxLxHxK.transpose(1, 2).chunk(3, -1)
        context_BxHxLxK = functional.scaled_dot_product_attention(
            rotated(query, positions_BxL),
            rotated(key, positions_BxL),
            value,
            attn_mask=visible_BxLxL[:, None],
        )
        return self.wo(context_BxHxLxK.transpose(1, 2).flatten(-2))


class SwiGlu(nn.Module):
    """Gated feed-forward sublayer; `w12` has the gate's rows, then those that it multiplies."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden, bias=False)
        self.w3 = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BxLxD: Tensor) -> Tensor:
        gate, up = self.w12(x_BxLxD).chunk(2, -1)
        return self.w3(functional.silu(gate) * up)


def rotated(x_BxHxLxK: Tensor, positions_BxL: Tensor) -> Tensor:
    """Return vectors whose elements 2 i and 2 i + 1 are turned by an angle of the position."""
    width = x_BxHxLxK.shape[-1]
    exponents = torch.arange(0, width, 2, dtype=x_BxHxLxK.dtype) / width
    # A quotient, as in the authors' code: its last bits show in long rows.
    angles = positions_BxL[:, None, :, None] * (1.0 / ROTARY_BASE**exponents)
    cosines, sines = angles.cos(), angles.sin()
    even, odd = x_BxHxLxK[..., 0::2], x_BxHxLxK[..., 1::2]
    turned = torch.stack([even * cosines - odd * sines, even * sines + odd * cosines], -1)
    return turned.flatten(-2)
