"""Configuration of the encoder."""

from dataclasses import dataclass
from typing import Literal

from bertjax.config.field_types import check_fields
from bertjax.config.layers import Activation, LayerConfig, check_layers
from bertjax.config.range_checks import fit_int32, fraction_below_one, not_negative, positive
from bertjax.errors import check

Head = Literal["pooler", "mlm", "nsp", "rtd"]
"""Pretraining heads: the sentence vector, masked words, sentence pairs, replaced tokens."""

Remat = Literal["none", "dots", "heads", "full"]
"""Rematerialization policies: the values that the backward pass recomputes (see `remat`)."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(LayerConfig):
    """An encoder; the defaults are BERT base (arXiv 1810.04805)."""

    vocab_size: int = 30_522
    """Number of word embeddings; not less than the tokenizer's number of tokens.
    A multiple of 128 is faster on a TPU: 30,592 for BERT's 30,522 tokens.
    """
    hidden_size: int = 768
    """Hidden size D: width of the hidden states.
    It is a multiple of num_attention_heads, unless attention_head_size gives the width of a head.
    """
    num_hidden_layers: int = 12
    """Number of layers N."""
    intermediate_size: int = 3072
    """Width F of the feed-forward sublayer; 4 D in BERT."""
    # As BERT's paper (arXiv 1810.04805, appendix A.2): 0.1 on all layers.
    hidden_dropout_prob: float = 0.1
    """Dropout rate at the dropout_places, and before the heads of tasks: 0 to below 1."""
    attention_probs_dropout_prob: float = 0.1
    """Dropout rate of the attention probabilities: 0 to below 1."""
    embedding_noise: float = 0.0
    """Size a of the noise that training adds to the word embeddings; 0: none (docs/objectives.md).
    Each number gets a random one times a / sqrt(tokens of the row x width of the embeddings), as
    in NEFTune (arXiv 2310.05914, which has a of 5 to 15). Evaluations have none.
    """
    embedding_noise_kind: Literal["uniform", "gaussian"] = "uniform"
    """What the random numbers are: uniform on -1 to 1, or normal of variance 1."""
    max_position_embeddings: int = 512
    """Number of positions; not less than data.max_seq_length + position_offset."""
    # RoBERTa's tokens begin after the position of padding, padding_idx = 1.
    position_offset: int = 0
    """Index of the position embedding of a row's first token; 0 for BERT, 2 for RoBERTa."""
    type_vocab_size: int = 2
    """Number of token-type (segment) embeddings; 0: none."""
    embedding_size: int = 0
    """Width E of embeddings that are then projected to D (arXiv 1909.11942); 0: no projection."""
    share_layers: bool = False
    """Use the same parameters in all layers (arXiv 1909.11942)."""
    heads: tuple[Head, ...] = ("pooler", "mlm", "nsp")
    """Pretraining heads that the model has: pooler, mlm (masked words), nsp (sentence pairs), rtd
    (replaced tokens). pooler computes the sentence vector; nsp needs it.
    """
    pooling: Literal["first", "mean"] = "first"
    """Hidden states that the pooler reads: that of the first token, or their mean."""
    pooler: Literal["dense", "none"] = "dense"
    """What the pooler computes: a linear layer and an activation (dense), or nothing (none)."""
    pooler_act: Literal["tanh", Activation] = "tanh"
    """Activation of the pooler."""
    pooler_norm: bool = False
    """Whether a norm follows the pooler's activation."""
    token_pooler: bool = False
    """Whether heads of tasks on tokens read the pooler's function of each hidden state, and not the
    hidden state itself.
    """
    mlm_transform: bool = True
    """Whether the head for masked words has a linear layer, an activation and a norm."""
    mlm_hidden_size: int = 0
    """Width of another linear layer and activation before those of mlm_transform; 0: none."""
    mlm_act: Literal["same", Activation] = "same"
    """Activation of the head for masked words; same: hidden_act."""
    mlm_norm: bool = True
    """Whether the activation of the head for masked words is followed by a norm."""
    mlm_tied: bool = True
    """Use the word embeddings for the logits of masked words (arXiv 1608.05859)."""
    mlm_shifted: bool = False
    """Predict a masked token from the hidden state before it, as a causal model predicts the next
    one (masked next-token prediction, arXiv 2410.24159). Needs the head mlm to mean anything.
    """
    z_loss: float = 0.0
    """Factor of the squared logarithm of the softmax's denominator, added to the loss of each
    masked word (arXiv 2204.02311); 0: none.
    """
    initializer: Literal["truncated_normal", "uniform"] = "truncated_normal"
    """Distribution of the initial kernels and embeddings."""
    # As the original code (modeling.py, BertConfig).
    initializer_range: float = 0.02
    """Scale of the initial kernels and embeddings; biases start at 0.
    truncated_normal: the standard deviation, truncated at two of it. uniform: the largest value.
    """
    scaled_init: Literal["none", "depth", "layer"] = "none"
    """Smaller initial kernels where a sublayer's output is added.
    depth: those of the last linear layers of each sublayer and of the head for masked words are
    divided by the root of 2 N (arXiv 1909.08053). layer: those of the feed-forward sublayer of
    layer i, counted from 1, are divided by the root of 2 i (arXiv 2410.24159).
    """
    # As in the original code: PyTorch's default 1e-5 would change the output of a trained model.
    layer_norm_eps: float = 1e-12
    """Number added to the variance in layer norms."""
    exported_as: str = ""
    """The family that an export writes, where several have models that compute the same.
    Empty: the first of them. Nothing else depends on it.
    """
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
    """Code of attention, dropout, layer norm and cross-entropy: XLA's (xla) or our own (pallas).
    The kernels do not write attention logits and their dropout to main memory. On a TPU they need
    rows of a multiple of 128 tokens and a head width that divides 128. Rows of more than 512
    tokens, windows, and rotary positions inside the kernel are for
    attention_probs_dropout_prob 0, and for as many tokens as a core's memory holds: 11,000 and more
    on v5e, v5p and v6e in bfloat16, 1,900 on v4. Relative positions are for up to 2,304 tokens on
    v5e and v6e and 1,408 on v5p (heads of width 64 in bfloat16), and not for v4. Another kernel
    does dropout, residual and layer norm if the hidden size is a multiple of 128. The masked words'
    cross-entropy has kernels for TPUs where mesh.tensor is 1, the vectors before the logits have a
    width of a multiple of 128, and a core's memory holds the masked words of a device: 23,900 of
    width 768 on v5e and v6e, 10,600 on v5p, 250 on v4. On a GPU they need rows of a multiple of 64
    tokens and head widths from 16 to 128; attention may be global or local. For other shapes and
    devices, and for models without a mesh, xla is used. Its dropout masks are the same (for global
    attention: in rows of fewer than 2,048 tokens).
    """
    sparse_products: Literal["auto", "never", "always"] = "auto"
    """Products with kernels whose weights are mostly 0, in evaluation, prediction and embed.
    auto: of each kernel the sparse or the dense product, whichever is faster on the device at hand;
    both are measured when the model is loaded, if 80 % of its weights are 0. Several devices, and
    kernels pallas, have dense ones. never: dense. always: sparse, whatever it costs.
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
        positive("model", self, "intermediate_size", "max_position_embeddings")
        positive("model", self, "initializer_range", "layer_norm_eps", "scan_unroll")
        fit_int32("model", self)
        not_negative("model", self, "embedding_size", "position_offset", "type_vocab_size")
        not_negative("model", self, "z_loss", "mlm_hidden_size", "embedding_noise")
        check_layers(self)
        _check_positions(self)
        _check_heads(self)
        _check_dropout(self)
        check(
            self.attention_head_size > 0 or self.hidden_size % self.num_attention_heads == 0,
            where="model.hidden_size",
            found=self.hidden_size,
            expected=f"a multiple of model.num_attention_heads ({self.num_attention_heads})",
        )
        _check_head_widths(self)

    @property
    def max_length(self) -> int:
        """Length in tokens of the longest row that the position embeddings allow."""
        return self.max_position_embeddings - self.position_offset

    @property
    def head_width(self) -> int:
        """Width K of an attention head."""
        return self.attention_head_size or self.hidden_size // self.num_attention_heads

    @property
    def attention_width(self) -> int:
        """Width H x K of all heads together."""
        return self.num_attention_heads * self.head_width

    @property
    def key_value_heads(self) -> int:
        """Number of heads of keys and values."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def attends_globally(self) -> tuple[bool, ...]:
        """One value for each of the N layers: true if the layer has global attention."""
        return tuple(self.is_global(layer) for layer in range(self.num_hidden_layers))

    @property
    def alternates(self) -> bool:
        """True if some layers have global and others local attention."""
        # The pattern repeats, and an untrusted configuration may claim any number of layers.
        period = min(self.num_hidden_layers, max(self.global_attn_every_n_layers, 1))
        kinds = {self.is_global(layer) for layer in range(period if self.local_attention else 0)}
        return len(kinds) > 1

    @property
    def mlm_activation(self) -> Activation:
        """The activation of the head for masked words."""
        return self.hidden_act if self.mlm_act == "same" else self.mlm_act

    @property
    def pooler_is_mlm_transform(self) -> bool:
        """True if the pooler computes what the head for masked words does before its product."""
        return (
            (self.pooler == "dense" and self.pooler_norm)
            and (self.mlm_transform and self.mlm_norm and not self.mlm_hidden_size)
            and self.pooler_act == self.mlm_activation
            and ("pooler" in self.biases) == ("mlm_transform" in self.biases)
            and self.embedding_width == self.hidden_size
        )

    @property
    def embedding_width(self) -> int:
        """Width of the embedding tables: `embedding_size`, or `hidden_size` if that is 0."""
        return self.embedding_size or self.hidden_size


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
    check(
        # In packed rows a sentence pair is known by the position of its first token.
        "nsp" not in model.heads or model.pooling == "first",
        where="model.pooling",
        found=model.pooling,
        expected="first, for the head nsp",
    )
    check(
        not model.pooler_norm or model.pooler != "none",
        where="model.pooler_norm",
        found=model.pooler_norm,
        expected="false with pooler none",
    )


def _check_head_widths(model: ModelConfig) -> None:
    check(
        model.positions != "rotary" or model.head_width % 2 == 0,
        where="model.positions",
        found=model.positions,
        expected=f"another for heads of odd width ({model.head_width})",
    )
    # Without its linear layer the head has nothing that could change the width.
    check(
        model.mlm_transform or not model.embedding_size or not model.mlm_tied,
        where="model.mlm_transform",
        found=model.mlm_transform,
        expected="true, for embeddings of another width",
    )
    check(
        model.mlm_transform or not model.mlm_hidden_size,
        where="model.mlm_hidden_size",
        found=model.mlm_hidden_size,
        expected="0 without mlm_transform",
    )


def _check_dropout(model: ModelConfig) -> None:
    check(
        # On TPUs attention's kernel reads three dense kernels as one.
        model.sparse_products != "always" or model.kernels == "xla",
        where="model.sparse_products",
        found=model.sparse_products,
        expected="auto or never, with model.kernels pallas",
    )
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
