"""GPT-BERT (arXiv 2410.24159) in torch, with the names of its tensors on disk.

No dropout. The norms called `plain` have no parameters.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.families.rows import Outputs, visible_tokens


@dataclass(frozen=True, kw_only=True)
class GptBertConfig:
    """Sizes, by the names in the authors' configuration files; the defaults are those of base."""

    vocab_size: int = 16384
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 2560
    max_position_embeddings: int = 512
    position_bucket_size: int = 32
    layer_norm_eps: float = 1e-5
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0


class GptBert(nn.Module):
    """Embeddings, encoder and the head for masked words."""

    def __init__(self, config: GptBertConfig):
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.transformer = Transformer(config)
        self.classifier = nn.ModuleDict({"nonlinearity": _head(config)})
        # One tensor under two names, as on disk.
        self.classifier["nonlinearity"][5].weight = self.embedding.word_embedding.weight

    def forward(
        self, input_ids_BxL: Tensor, inputs_BxL: Tensor | None = None, causal: bool = False
    ) -> Outputs:
        """Return the last layer's output and the logits.

        `inputs_BxL`: see `visible_tokens`; one input fills each row by default.
        """
        if inputs_BxL is None:
            inputs_BxL = torch.ones_like(input_ids_BxL)
        visible_BxLxL = visible_tokens(inputs_BxL, causal)
        x_BxLxD, relative_RxD = self.embedding(input_ids_BxL)
        hidden_BxLxD = self.transformer(x_BxLxD, relative_RxD, visible_BxLxL)
        return Outputs(hidden_BxLxD, self.classifier["nonlinearity"](hidden_BxLxD))


def _plain_norm(width: int, config: GptBertConfig) -> nn.LayerNorm:
    return nn.LayerNorm(width, config.layer_norm_eps, elementwise_affine=False)


def _head(config: GptBertConfig) -> nn.Sequential:
    width = config.hidden_size
    return nn.Sequential(
        _plain_norm(width, config),
        nn.Linear(width, width),
        nn.GELU(),
        _plain_norm(width, config),
        nn.Identity(),  # on disk the numbers count a dropout here
        nn.Linear(width, config.vocab_size),
    )


class Embedding(nn.Module):
    """Embeddings of tokens and of relative positions."""

    def __init__(self, config: GptBertConfig):
        super().__init__()
        rows, width = 2 * config.position_bucket_size - 1, config.hidden_size
        self.word_embedding = nn.Embedding(config.vocab_size, width)
        self.plain_norm = _plain_norm(width, config)
        self.relative_embedding = nn.Parameter(torch.zeros(rows, width))
        self.relative_layer_norm = nn.LayerNorm(width, config.layer_norm_eps)

    def forward(self, input_ids_BxL: Tensor) -> tuple[Tensor, Tensor]:
        x_BxLxD = self.plain_norm(self.word_embedding(input_ids_BxL))
        return x_BxLxD, self.relative_layer_norm(self.relative_embedding)


class Transformer(nn.Module):
    """The layers: after each sublayer, a learned sum of all outputs so far (arXiv 2402.02622)."""

    def __init__(self, config: GptBertConfig):
        super().__init__()
        layers = range(config.num_hidden_layers)
        self.attention_layers = nn.ModuleList([Attention(config) for _ in layers])
        self.mlp_layers = nn.ModuleList([Mlp(config) for _ in layers])
        self.dwa_modules = Mix(2 * config.num_hidden_layers)

    def forward(self, x_BxLxD: Tensor, relative_RxD: Tensor, visible_BxLxL: Tensor) -> Tensor:
        outputs = [x_BxLxD]
        for attention, mlp in zip(self.attention_layers, self.mlp_layers, strict=True):
            outputs.append(x_BxLxD + attention(x_BxLxD, relative_RxD, visible_BxLxL))
            x_BxLxD = self.dwa_modules(outputs)
            outputs.append(x_BxLxD + mlp(x_BxLxD))
            x_BxLxD = self.dwa_modules(outputs)
        return x_BxLxD


class Mix(nn.Module):
    """Weights of the outputs so far, one vector for each sublayer; at first 1 for the last."""

    def __init__(self, sublayers: int):
        super().__init__()
        vectors = [functional.one_hot(torch.tensor(i + 1)).float() for i in range(sublayers)]
        self.alphas = nn.ParameterList([nn.Parameter(vector) for vector in vectors])

    def forward(self, outputs: list[Tensor]) -> Tensor:
        return torch.einsum("n,nbld->bld", self.alphas[len(outputs) - 2], torch.stack(outputs))


class Attention(nn.Module):
    """Disentangled attention (arXiv 2006.03654) with a gate on what it returns."""

    def __init__(self, config: GptBertConfig):
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.in_proj_qk = nn.Linear(width, 2 * width)
        self.in_proj_vg = nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)
        self.plain_norm = _plain_norm(width, config)
        self.register_buffer("position_indices", position_indices(config))

    def forward(self, x_BxLxD: Tensor, relative_RxD: Tensor, visible_BxLxL: Tensor) -> Tensor:
        length = x_BxLxD.shape[1]
        normed_BxLxD = self.plain_norm(x_BxLxD)
        query_BxLxHxK, key_BxLxHxK = self._queries_keys(normed_BxLxD)
        value_BxLxD, gate_BxLxD = self.in_proj_vg(normed_BxLxD).chunk(2, -1)
        places_LxL = self.position_indices[:length, :length]
        # Both terms read the row of the same pair of query i and key j.
        query_RxHxK, key_RxHxK = self._queries_keys(relative_RxD)
        scores_BxHxLxL = (
            torch.einsum("bihk,bjhk->bhij", query_BxLxHxK, key_BxLxHxK)
            + torch.einsum("bihk,ijhk->bhij", query_BxLxHxK, key_RxHxK[places_LxL])
            + torch.einsum("bjhk,ijhk->bhij", key_BxLxHxK, query_RxHxK[places_LxL])
        ) / math.sqrt(3 * query_BxLxHxK.shape[-1])
        scores_BxHxLxL = scores_BxHxLxL.masked_fill(~visible_BxLxL[:, None], -math.inf)
        value_BxLxHxK = self._split(value_BxLxD)
        context = torch.einsum("bhij,bjhk->bihk", scores_BxHxLxL.softmax(-1), value_BxLxHxK)
        gated_BxLxD = context.flatten(-2) * functional.gelu(gate_BxLxD)
        return self.out_proj(self.plain_norm(gated_BxLxD))

    def _queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key = self.in_proj_qk(x).chunk(2, -1)
        return self._split(query), self._split(key)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


def position_indices(config: GptBertConfig) -> Tensor:
    """Return the row of the table of relative positions for query i and key j, as [L, L].

    b - 1 + (i - j) if the distance is at most b / 2. Beyond, up to the longest distance, the rest of
    the b - 1 rows on each side have logarithmic width.
    """
    middle = config.position_bucket_size // 2
    longest = config.max_position_embeddings - 1
    place_L = torch.arange(config.max_position_embeddings)
    offset_LxL = place_L[:, None] - place_L[None, :]
    distance_LxL = offset_LxL.abs().clamp(middle, longest)
    share_LxL = (distance_LxL / middle).log() / math.log(longest / middle)
    far_LxL = (share_LxL * (middle - 1)).ceil().long() + middle
    near_LxL = offset_LxL.abs() <= middle
    bucket_LxL = torch.where(near_LxL, offset_LxL, far_LxL * offset_LxL.sign())
    return config.position_bucket_size - 1 + bucket_LxL


class Mlp(nn.Module):
    """Gated feed-forward sublayer, normalized before both of its linear layers."""

    def __init__(self, config: GptBertConfig):
        super().__init__()
        self.mlp = nn.Sequential(
            _plain_norm(config.hidden_size, config),
            nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False),
            GeluOfSecondHalf(),
            _plain_norm(config.intermediate_size, config),
            nn.Linear(config.intermediate_size, config.hidden_size, bias=False),
        )

    def forward(self, x_BxLxD: Tensor) -> Tensor:
        return self.mlp(x_BxLxD)


class GeluOfSecondHalf(nn.Module):
    """The first half of a vector, times gelu (tanh approximation) of the second."""

    def forward(self, x: Tensor) -> Tensor:
        up, gate = x.chunk(2, -1)
        return up * functional.gelu(gate, approximate="tanh")
