"""The encoder."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from bertjax.config.range_checks import positive
from bertjax.errors import check

Head = Literal["pooler", "mlm", "nsp"]
Remat = Literal["none", "dots", "heads", "full"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The encoder of arXiv 1810.04805; the defaults are BERT base."""

    vocab_size: int = 30_522
    """Rows of the word embedding; at least the tokenizer's size (rounding up to 128 suits a TPU)."""
    hidden_size: int = 768
    """Width D of the hidden states."""
    num_hidden_layers: int = 12
    """Layers N."""
    num_attention_heads: int = 12
    """Heads H; divides hidden_size."""
    intermediate_size: int = 3072
    """Width F of the feed-forward layer."""
    hidden_act: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    """Activation; gelu is the exact one, by erf."""
    hidden_dropout_prob: float = 0.1
    """Dropout after the embeddings and after each sublayer."""
    attention_probs_dropout_prob: float = 0.1
    """Dropout of the attention probabilities."""
    max_position_embeddings: int = 512
    """Rows of the learned position embedding; at least data.max_seq_length, and position_offset
    more.
    """
    position_offset: int = 0
    """Row of the first position; RoBERTa's is 2."""
    type_vocab_size: int = 2
    """Rows of the token-type (segment) embedding."""
    embedding_size: int = 0
    """Width E of the embeddings, where a projection leads from it to hidden_size (arXiv
    1909.11942); 0: none.
    """
    share_layers: bool = False
    """One layer's parameters for all layers (arXiv 1909.11942)."""
    heads: tuple[Head, ...] = ("pooler", "mlm", "nsp")
    """What the model has beside the encoder: the sentence vector, and the scores of masked words
    and of sentence pairs.
    """
    initializer_range: float = 0.02
    """Standard deviation of the normal, cut at two deviations, that initialises kernels and
    embeddings.
    """
    layer_norm_eps: float = 1e-12
    """Added to the variance in layer norms."""
    local_attention: int = 0
    """Width of the window of layers with local attention, whose tokens attend to others up to half
    of it away on each side (arXiv 2412.13663), so that the cost of a row is linear in its
    length; 0: there is no such layer.
    """
    global_attn_every_n_layers: int = 3
    """With local_attention every n-th layer, from the first, still attends to the whole row; 0:
    none does.
    """
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products; parameters, layer norms, softmax and loss stay float32."""
    scan_unroll: int = 1
    """Layers a step of the scan over layers: 1 compiles fastest; num_hidden_layers runs fastest on
    CPU and TPU.
    """
    remat: Remat = "none"
    """What the backward pass computes again instead of keeping it, layer by layer: nothing
    (`none`); all but the results of matrix products with parameters (`dots`); also queries, keys
    and values, which on a TPU take less time to compute than to fetch (`heads`); everything
    (`full`: least memory, about a third more work).
    """
    kernels: Literal["xla", "pallas"] = "xla"
    """pallas: kernels of our own keep attention's scores and their dropout out of main memory: on
    TPU for rows of 128, 256, 384 or 512 ids and heads whose width divides 128; on GPU for rows
    that 64 divides and heads of 16 to 128, whole rows or local. On TPU one more does dropout,
    residual and layer norm, for widths that 128 divides. For other shapes, elsewhere, and where
    no mesh is given, as xla, with the same masks (of whole rows below 2,048 ids).
    """
    dropout_bits: Literal["threefry", "hash", "rbg"] = "threefry"
    """Where dropout's random bits come from. threefry: JAX's own. hash: a few integer operations on
    each element's place, faster, the only one that our kernels use; a good mask, not a proven
    generator. These two give the same masks on any mesh; rbg, the device's own generator, does
    not, nor on another kind of device.
    """

    def __post_init__(self) -> None:
        positive(
            "model", self, "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"
        )
        positive("model", self, "intermediate_size", "max_position_embeddings", "type_vocab_size")
        positive("model", self, "initializer_range", "layer_norm_eps", "scan_unroll")
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            check(
                not isinstance(value, int) or value < 2**31,
                where=f"model.{f.name}",
                found=str(value)[:20],
                expected="less than 2**31",
            )
        check(
            self.local_attention >= 0 and self.local_attention % 2 == 0,
            where="model.local_attention",
            found=self.local_attention,
            expected="an even number, 0 or more",
        )
        for name in ("embedding_size", "position_offset", "global_attn_every_n_layers"):
            check(
                getattr(self, name) >= 0,
                where=f"model.{name}",
                found=getattr(self, name),
                expected="0 or more",
            )
        check(
            self.max_length > 0,
            where="model.position_offset",
            found=self.position_offset,
            expected=f"less than model.max_position_embeddings ({self.max_position_embeddings})",
        )
        check(
            len(set(self.heads)) == len(self.heads)
            and ("nsp" not in self.heads or "pooler" in self.heads),
            where="model.heads",
            found=self.heads,
            expected="each once, and pooler where there is nsp",
        )
        kernel_drops = (
            self.kernels == "pallas"
            and self.attention_probs_dropout_prob + self.hidden_dropout_prob > 0
        )
        check(
            not kernel_drops or self.dropout_bits == "hash",
            where="model.dropout_bits",
            found=self.dropout_bits,
            expected="hash, for dropout inside model.kernels pallas",
        )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            check(
                0 <= getattr(self, name) < 1,
                where=f"model.{name}",
                found=getattr(self, name),
                expected="a number from 0 to below 1",
            )
        check(
            self.hidden_size % self.num_attention_heads == 0,
            where="model.hidden_size",
            found=self.hidden_size,
            expected=f"a multiple of model.num_attention_heads ({self.num_attention_heads})",
        )

    @property
    def max_length(self) -> int:
        """Ids in the longest row that the positions allow."""
        return self.max_position_embeddings - self.position_offset

    @property
    def attends_everywhere(self) -> tuple[bool, ...]:
        """Of each layer whether its tokens attend to the whole row."""
        return tuple(self.is_global(layer) for layer in range(self.num_hidden_layers))

    def is_global(self, layer: int) -> bool:
        """Whether the tokens of this layer, from 0, attend to the whole row."""
        every = self.global_attn_every_n_layers
        return not self.local_attention or (every > 0 and layer % every == 0)

    @property
    def alternates(self) -> bool:
        """Whether some layers attend to the whole row and others do not: then the first two differ."""
        return self.num_hidden_layers > 1 and self.is_global(0) != self.is_global(1)

    @property
    def embedding_width(self) -> int:
        """Width of the embedding tables: `embedding_size`, or `hidden_size` where that is 0."""
        return self.embedding_size or self.hidden_size
