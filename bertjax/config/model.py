"""Configuration of the encoder."""

from dataclasses import dataclass
from typing import Literal

from bertjax.config.field_types import check_fields
from bertjax.config.range_checks import fit_int32, fraction_below_one, not_negative, positive
from bertjax.errors import check

Head = Literal["pooler", "mlm", "nsp"]
"""Pretraining heads: the sentence vector, masked words, sentence pairs."""

Remat = Literal["none", "dots", "heads", "full"]
"""Rematerialization policies: the values that the backward pass recomputes (see `remat`)."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The encoder of arXiv 1810.04805; the defaults are BERT base."""

    vocab_size: int = 30_522
    """Number of word embeddings; not less than the tokenizer's number of tokens.
    A multiple of 128 is faster on a TPU: 30,592 for BERT's 30,522 tokens.
    """
    hidden_size: int = 768
    """Hidden size D: width of the hidden states; a multiple of num_attention_heads."""
    num_hidden_layers: int = 12
    """Number of layers N."""
    num_attention_heads: int = 12
    """Number of attention heads H; each has width D / H."""
    intermediate_size: int = 3072
    """Width F of the feed-forward sublayer; 4 D in BERT."""
    hidden_act: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    """Activation of the feed-forward sublayer (arXiv 1606.08415).
    gelu: exact, computed with erf. gelu_tanh: the tanh approximation of gelu, which the original
    code of BERT uses.
    """
    # As BERT's paper (arXiv 1810.04805, appendix A.2): 0.1 on all layers.
    hidden_dropout_prob: float = 0.1
    """Dropout rate after the embeddings and after each sublayer: 0 to below 1."""
    attention_probs_dropout_prob: float = 0.1
    """Dropout rate of the attention probabilities: 0 to below 1."""
    max_position_embeddings: int = 512
    """Number of position embeddings; not less than data.max_seq_length + position_offset."""
    # RoBERTa's tokens begin after the position of padding, padding_idx = 1.
    position_offset: int = 0
    """Index of the position embedding of a row's first token; 0 for BERT, 2 for RoBERTa."""
    type_vocab_size: int = 2
    """Number of token-type (segment) embeddings."""
    embedding_size: int = 0
    """Width E of embeddings that are then projected to D (arXiv 1909.11942); 0: no projection."""
    share_layers: bool = False
    """Use the same parameters in all layers (arXiv 1909.11942)."""
    heads: tuple[Head, ...] = ("pooler", "mlm", "nsp")
    """Pretraining heads that the model has: pooler, mlm (masked words), nsp (sentence pairs).
    pooler computes the sentence vector; nsp needs it.
    """
    # As the original code (modeling.py, BertConfig).
    initializer_range: float = 0.02
    """Standard deviation of the normal distribution of the initial parameters.
    Kernels and embeddings are drawn from it, truncated at two standard deviations. Biases start
    at 0.
    """
    # As in the original code: PyTorch's default 1e-5 would change the output of a trained model.
    layer_norm_eps: float = 1e-12
    """Number added to the variance in layer norms."""
    local_attention: int = 0
    """Window width in tokens of layers with local attention (arXiv 2412.13663); even; 0: none.
    A token attends to the tokens up to local_attention / 2 positions before and after it. The cost
    of a row is then linear in its length.
    """
    # As ModernBERT (arXiv 2412.13663): every third layer is global, the first among them.
    global_attn_every_n_layers: int = 3
    """With local_attention: every n-th layer, beginning with the first, is global; 0: no layer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of matrix products; parameters, layer norms, softmax and loss are always float32."""
    # A loop: to write the layers out takes several times as long to compile (docs/benchmarks.md).
    scan_unroll: int = 1
    """Number of layers in one iteration of the loop over layers.
    1 compiles fastest; num_hidden_layers (no loop) runs fastest on CPU and TPU.
    """
    remat: Remat = "none"
    """Rematerialization: values that the backward pass recomputes, to save memory.
    none: nothing. dots: everything except the results of matrix products with parameters. heads: as
    dots, and also queries, keys and values; a TPU recomputes these faster than it reads them from
    memory. full: everything; this needs the least memory and about a third more computation.
    """
    kernels: Literal["xla", "pallas"] = "xla"
    """Code of attention, dropout and layer norm: XLA's (xla), or our own kernels (pallas).
    The kernels do not write attention logits and their dropout to main memory. On a TPU they need
    rows of 128, 256, 384 or 512 tokens and a head width that divides 128; another kernel does
    dropout, residual and layer norm if the hidden size is a multiple of 128. On a GPU they need
    rows of a multiple of 64 tokens and head widths from 16 to 128; attention may be global or
    local. For other shapes and devices, and for models without a mesh, xla is used. Its dropout
    masks are the same (for global attention: in rows of fewer than 2,048 tokens).
    """
    dropout_bits: Literal["threefry", "hash", "rbg"] = "threefry"
    """Source of dropout's random bits.
    threefry: JAX's default generator. hash: a few integer operations on each element's position;
    it is faster, and our kernels need it for dropout, but its quality is not proven. threefry and
    hash give the same masks on any mesh. rbg: the device's own generator; its masks depend on mesh
    and device.
    """

    def __post_init__(self) -> None:
        check_fields("model", self)
        positive(
            "model", self, "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"
        )
        positive("model", self, "intermediate_size", "max_position_embeddings", "type_vocab_size")
        positive("model", self, "initializer_range", "layer_norm_eps", "scan_unroll")
        fit_int32("model", self)
        _check_attention_window(self)
        not_negative(
            "model", self, "embedding_size", "position_offset", "global_attn_every_n_layers"
        )
        _check_positions(self)
        _check_heads(self)
        _check_dropout(self)
        check(
            self.hidden_size % self.num_attention_heads == 0,
            where="model.hidden_size",
            found=self.hidden_size,
            expected=f"a multiple of model.num_attention_heads ({self.num_attention_heads})",
        )

    @property
    def max_length(self) -> int:
        """Length in tokens of the longest row that the position embeddings allow."""
        return self.max_position_embeddings - self.position_offset

    @property
    def attends_globally(self) -> tuple[bool, ...]:
        """One value for each of the N layers: true if the layer has global attention."""
        return tuple(self.is_global(layer) for layer in range(self.num_hidden_layers))

    def is_global(self, layer: int) -> bool:
        """Return true if the layer, counted from 0, has global attention."""
        every = self.global_attn_every_n_layers
        return not self.local_attention or (every > 0 and layer % every == 0)

    @property
    def alternates(self) -> bool:
        """True if some layers have global and others local attention."""
        # It is enough to compare layers 0 and 1. For n above 1, layer 0 is global and layer 1 is
        # local. For n = 0 all layers are local, and for n = 1 all are global.
        return self.num_hidden_layers > 1 and self.is_global(0) != self.is_global(1)

    @property
    def embedding_width(self) -> int:
        """Width of the embedding tables: `embedding_size`, or `hidden_size` if that is 0."""
        return self.embedding_size or self.hidden_size


def _check_attention_window(model: ModelConfig) -> None:
    # The width is even because half of the window is on each side of a token.
    check(
        model.local_attention >= 0 and model.local_attention % 2 == 0,
        where="model.local_attention",
        found=model.local_attention,
        expected="an even number, 0 or more",
    )


def _check_positions(model: ModelConfig) -> None:
    check(
        model.max_length > 0,
        where="model.position_offset",
        found=model.position_offset,
        expected=f"less than model.max_position_embeddings ({model.max_position_embeddings})",
    )


def _check_heads(model: ModelConfig) -> None:
    unique = len(set(model.heads)) == len(model.heads)
    # The original's sentence head reads the pooled vector (run_pretraining.py).
    complete = "nsp" not in model.heads or "pooler" in model.heads
    check(
        unique and complete,
        where="model.heads",
        found=model.heads,
        expected="each once, and pooler where there is nsp",
    )


def _check_dropout(model: ModelConfig) -> None:
    has_dropout = model.attention_probs_dropout_prob + model.hidden_dropout_prob > 0
    # A kernel computes the bits of each block by itself. Only with `hash` are they equal to the
    # block's part of the whole array's bits.
    check(
        model.kernels != "pallas" or not has_dropout or model.dropout_bits == "hash",
        where="model.dropout_bits",
        found=model.dropout_bits,
        expected="hash, for dropout inside model.kernels pallas",
    )
    # At 1 nothing would stay, and what stays is scaled by 1 / (1 - rate).
    fraction_below_one("model", model, "hidden_dropout_prob", "attention_probs_dropout_prob")
