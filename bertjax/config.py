"""Every setting, with its meaning, unit, default and check. Imports neither jax nor TensorFlow.

A configuration is a plain Python file (see `configs/`) with a function
`get_config() -> Config`. `json` round-trips through `to_dict` and `from_dict`.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from bertjax.errors import UserError, check

T = TypeVar("T")
Head = Literal["pooler", "mlm", "nsp"]
Remat = Literal["none", "dots", "heads", "full"]


def _positive(section: str, config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(0 < value < math.inf, f"{section}.{name}", value, "a number above 0")


def _fraction(section: str, config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(0 <= value <= 1, f"{section}.{name}", value, "a number from 0 to 1")


TokenizerKind = Literal["wordpiece", "unigram", "bpe", "byte_bpe"]


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How text becomes ids."""

    kind: TokenizerKind = "wordpiece"
    """WordPiece; a SentencePiece model, unigram or BPE; or byte-level BPE as RoBERTa's, which is cased."""
    vocab_file: str = ""
    """An existing vocabulary (vocab.txt, a SentencePiece .model, or vocab.json with merges.txt beside it);
    empty: train one on the corpus."""
    vocab_size: int = 30_522
    """Entries to train, special tokens included; a small corpus may give fewer."""
    lowercase: bool = True
    """Lower-case the text and strip accents ("uncased")."""
    train_characters: int = 50_000_000
    """Characters of the corpus, at most, that a new vocabulary is trained on."""

    def __post_init__(self) -> None:
        check(self.vocab_size > 5, "tokenizer.vocab_size", self.vocab_size, "more than the 5 special tokens")
        _positive("tokenizer", self, "train_characters")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The corpus and the instances made from it, as in section 3.1 of arXiv 1810.04805."""

    corpus: tuple[str, ...] = ("python-docs",)
    """Sources: `python-docs` (what CPython carries), files, folders, globs, or `tfds:NAME[/CONFIG]`."""
    format: Literal["auto", "bert", "file", "line", "jsonl", "parquet"] = "auto"
    """bert: a sentence a line, a blank line between documents; file / line: one document each;
    auto: jsonl and parquet by the file's ending, else bert."""
    text_field: str = "text"
    """The field that holds the text, in JSON lines, Parquet and TFDS sources."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """What to do with bytes that are not UTF-8: stop with an error, or put U+FFFD."""
    prepared_dir: str = "prepared"
    """The folder of prepared shards: `prepare` writes it, `train` and `eval` read it. It may also
    hold TFRecord files of another BERT data script, with a `tokenizer/` folder beside them."""
    validation_fraction: float = 0.02
    """Share of the documents held out, chosen by a hash of their content."""
    max_seq_length: int = 128
    """Ids in a row, special tokens and padding included."""
    max_predictions_per_seq: int = 20
    """Masked positions in a row, at most."""
    mlm_probability: float = 0.15
    """Share of a row's tokens to predict."""
    short_seq_probability: float = 0.1
    """Share of instances aimed at a random shorter length."""
    masking: Literal["token", "whole_word", "ngram", "span"] = "whole_word"
    """What is chosen together: single tokens; whole words; one to three words (arXiv 1909.11942);
    spans of words of geometric length (arXiv 1907.10529)."""
    dynamic_masking: bool = False
    """Choose anew at every step, inside the jitted step: `prepare` then leaves training shards
    unmasked. Shards that are masked already can be trained on so, too."""
    word_segmenter: Literal["none", "jieba"] = "none"
    """Where Chinese words begin, for whole-word masking: every token, or as the package jieba says."""
    sentence_objective: Literal["next_sentence", "sentence_order", "none"] = "next_sentence"
    """What the pair is asked: does B follow A, or come from elsewhere; are A and B in order, or
    swapped (arXiv 1909.11942); nothing, and rows are full of sentences (arXiv 1907.11692)."""
    cross_documents: bool = False
    """With no sentence objective: let a row run on into the next document, [SEP] between."""
    max_sequences_per_row: int = 1
    """Packing: inputs that may share a row, attention kept apart; 1: none do (arXiv 2107.02027)."""
    dupe_factor: int = 5
    """Times each document is made into instances, each with other pairs and masks."""
    min_document_characters: int = 0
    """Shorter documents are dropped."""
    near_duplicate_threshold: float = 0.0
    """Of documents whose 5-grams of tokens have about this Jaccard similarity or more, one is kept; 0: all."""
    num_shards: int = 0
    """Training shards to write, each by one worker; 0: one for 64 MB of text, 8 at least."""
    workers: int = 0
    """Processes that prepare; 0: one a core. The output does not depend on it."""
    mixture: tuple[str, ...] = ()
    """Train on several prepared folders instead of `prepared_dir`, as NAME=FOLDER each."""
    mixture_weights: tuple[float, ...] = ()
    """Each folder's share of the rows, in any unit; empty: its number of rows to the power
    `mixture_exponent`."""
    mixture_exponent: float = 0.7
    """1: in proportion to size, 0: all alike; 0.7 is multilingual BERT's."""
    skip_damaged: bool = False
    """Train past records whose checksum is wrong, as empty rows, counted; else they are an error."""

    def __post_init__(self) -> None:
        check(len(self.corpus) > 0, "data.corpus", "no source", "at least one")
        _fraction("data", self, "validation_fraction", "mlm_probability", "short_seq_probability")
        _fraction("data", self, "near_duplicate_threshold", "mixture_exponent")
        _positive("data", self, "mlm_probability", "max_predictions_per_seq", "dupe_factor")
        check(self.max_seq_length >= 8, "data.max_seq_length", self.max_seq_length, "at least 8")
        check(self.num_shards >= 0, "data.num_shards", self.num_shards, "0 (as suits the corpus) or more")
        check(self.workers >= 0, "data.workers", self.workers, "0 (one a core) or more")
        check(
            self.max_predictions_per_seq < self.max_seq_length,
            "data.max_predictions_per_seq",
            self.max_predictions_per_seq,
            f"less than data.max_seq_length ({self.max_seq_length})",
        )
        _check_rows(self)
        _check_mixture(self)


def _check_rows(data: DataConfig) -> None:
    wanted = int(data.mlm_probability * (data.max_seq_length - 3))
    room = f"at least {wanted}, data.mlm_probability of a row (or a lower data.mlm_probability)"
    check(data.max_predictions_per_seq >= wanted, "data.max_predictions_per_seq", data.max_predictions_per_seq, room)
    most = data.max_sequences_per_row
    check(1 <= most <= 127, "data.max_sequences_per_row", most, "1 to 127")
    full = not data.cross_documents or data.sentence_objective == "none"
    check(full, "data.cross_documents", True, "data.sentence_objective none beside it")


def _check_mixture(data: DataConfig) -> None:
    names = [entry.partition("=")[0] for entry in data.mixture]
    for entry in data.mixture:
        name, _, folder = entry.partition("=")
        check(name.isidentifier() and bool(folder), "data.mixture", entry, "NAME=FOLDER, the name a word")
    check(len(set(names)) == len(names), "data.mixture", ", ".join(names), "a name once")
    weights = data.mixture_weights
    fits = not weights or (len(weights) == len(names) and min(weights) > 0)
    check(fits, "data.mixture_weights", weights, f"none, or a number above 0 for each of {len(names)} folders")


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
    """Rows of the learned position embedding; at least data.max_seq_length, and position_offset more."""
    position_offset: int = 0
    """Row of the first position; RoBERTa's is 2."""
    type_vocab_size: int = 2
    """Rows of the token-type (segment) embedding."""
    embedding_size: int = 0
    """Width E of the embeddings, where a projection leads from it to hidden_size (arXiv 1909.11942); 0: none."""
    share_layers: bool = False
    """One layer's parameters for all layers (arXiv 1909.11942)."""
    heads: tuple[Head, ...] = ("pooler", "mlm", "nsp")
    """What the model has beside the encoder: the sentence vector, and the scores of masked words and of
    sentence pairs."""
    initializer_range: float = 0.02
    """Standard deviation of the normal, cut at two deviations, that initialises kernels and embeddings."""
    layer_norm_eps: float = 1e-12
    """Added to the variance in layer norms."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products; parameters, layer norms, softmax and loss stay float32."""
    scan_unroll: int = 1
    """Layers a step of the scan over layers: 1 compiles fastest; num_hidden_layers runs fastest on CPU."""
    remat: Remat = "none"
    """What the backward pass computes again instead of keeping it, layer by layer: nothing (`none`); all
    but the results of matrix products with parameters (`dots`); also queries, keys and values, which on a TPU take
    less time to compute than to fetch (`heads`); everything (`full`: least memory, about a third more work)."""
    kernels: Literal["xla", "pallas"] = "xla"
    """pallas: on TPU, two kernels of our own, one that keeps attention's scores and their dropout out of main
    memory, for rows of 128, 256, 384 or 512 ids and heads whose width divides 128, and one for dropout, residual and
    layer norm, for widths that 128 divides; for other shapes, elsewhere, and where no mesh is given, as xla, with the
    same masks."""
    dropout_bits: Literal["threefry", "hash", "rbg"] = "threefry"
    """Where dropout's random bits come from. threefry: JAX's own. hash: a few integer operations on each element's
    place, faster, the only one that our kernels use; a good mask, not a proven generator. These two give
    the same masks on any mesh; rbg, the device's own generator, does not, nor on another kind of device."""

    def __post_init__(self) -> None:
        _positive("model", self, "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        _positive("model", self, "intermediate_size", "max_position_embeddings", "type_vocab_size")
        _positive("model", self, "initializer_range", "layer_norm_eps", "scan_unroll")
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            check(not isinstance(value, int) or value < 2**31, f"model.{f.name}", str(value)[:20], "less than 2**31")
        for name in ("embedding_size", "position_offset"):
            check(getattr(self, name) >= 0, f"model.{name}", getattr(self, name), "0 or more")
        check(
            self.max_length > 0,
            "model.position_offset",
            self.position_offset,
            f"less than model.max_position_embeddings ({self.max_position_embeddings})",
        )
        check(
            len(set(self.heads)) == len(self.heads) and ("nsp" not in self.heads or "pooler" in self.heads),
            "model.heads",
            self.heads,
            "each once, and pooler where there is nsp",
        )
        kernel_drops = self.kernels == "pallas" and self.attention_probs_dropout_prob + self.hidden_dropout_prob > 0
        check(
            not kernel_drops or self.dropout_bits == "hash",
            "model.dropout_bits",
            self.dropout_bits,
            "hash, for dropout inside model.kernels pallas",
        )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            check(0 <= getattr(self, name) < 1, f"model.{name}", getattr(self, name), "a number from 0 to below 1")
        check(
            self.hidden_size % self.num_attention_heads == 0,
            "model.hidden_size",
            self.hidden_size,
            f"a multiple of model.num_attention_heads ({self.num_attention_heads})",
        )

    @property
    def max_length(self) -> int:
        """Ids in the longest row that the positions allow."""
        return self.max_position_embeddings - self.position_offset

    @property
    def embedding_width(self) -> int:
        """Width of the embedding tables: `embedding_size`, or `hidden_size` where that is 0."""
        return self.embedding_size or self.hidden_size


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer, its learning-rate schedule and gradient clipping."""

    algorithm: Literal["adamw", "lamb", "bert"] = "adamw"
    """AdamW (arXiv 1711.05101); LAMB (arXiv 1904.00962), for large batches; or the original BERT's, AdamW
    without bias correction."""
    peak_learning_rate: float = 1e-4
    """Learning rate at the end of the warmup."""
    schedule: Literal["linear", "cosine", "constant", "inverse_sqrt", "step", "multistep"] = "linear"
    """Shape after the warmup. linear and cosine fall to end_learning_rate at train.steps;
    inverse_sqrt goes as sqrt(warmup_steps / step); step multiplies by decay_factor every
    decay_steps, multistep at each of milestones."""
    warmup_steps: int = 10_000
    """Steps of linear warmup from 0."""
    end_learning_rate: float = 0.0
    """Where linear and cosine end."""
    decay_steps: int = 0
    """Steps between the drops of schedule=step."""
    milestones: tuple[int, ...] = ()
    """Steps at which schedule=multistep drops, ascending."""
    decay_factor: float = 0.1
    """Multiplier at each drop."""
    b1: float = 0.9
    """Decay of the first moment."""
    b2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-6
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay; none on biases and layer norms."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0: no clipping."""

    def __post_init__(self) -> None:
        _positive("optimizer", self, "peak_learning_rate", "eps", "decay_factor")
        _fraction("optimizer", self, "b1", "b2")
        for name in ("warmup_steps", "end_learning_rate", "weight_decay", "max_grad_norm"):
            check(getattr(self, name) >= 0, f"optimizer.{name}", getattr(self, name), "0 or more")
        if self.schedule == "step":
            _positive("optimizer", self, "decay_steps")
        if self.schedule == "multistep":
            ascending = list(self.milestones) == sorted(set(self.milestones)) and self.milestones
            check(bool(ascending), "optimizer.milestones", self.milestones, "ascending steps, at least one")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop: how long, how large a batch, and what is watched and kept."""

    steps: int = 1_000_000
    """Optimizer updates."""
    batch_size: int = 256
    """Rows in a global batch, over all devices and accumulation steps."""
    gradient_accumulation_steps: int = 1
    """Parts that the batch is worked in, one after another, to save memory; same gradient."""
    log_every_steps: int = 100
    """Steps between lines of the log; metrics.jsonl has every step all the same."""
    eval_every_steps: int = 5_000
    """Steps between held-out evaluations."""
    eval_max_batches: int = 0
    """Batches of a held-out evaluation while training; 0: all."""
    save_every_steps: int = 5_000
    """Steps between checkpoints; the best is known only where an evaluation falls on the same step."""
    keep_checkpoints: int = 3
    """Latest checkpoints to keep; the best by held-out loss is kept beside them."""
    max_nonfinite_steps: int = 5
    """Updates in a row that may be skipped for a loss or gradient that is not finite, before the run ends."""
    overfit_evaluations: int = 3
    """Evaluations in a row with rising held-out and falling training loss, before a warning."""
    prefetch_batches: int = 4
    """Batches that the input pipeline holds ready."""

    def __post_init__(self) -> None:
        _positive("train", self, *(f.name for f in dataclasses.fields(self) if f.name != "eval_max_batches"))
        check(self.eval_max_batches >= 0, "train.eval_max_batches", self.eval_max_batches, "0 (all) or more")
        check(
            self.batch_size % self.gradient_accumulation_steps == 0,
            "train.batch_size",
            self.batch_size,
            f"a multiple of train.gradient_accumulation_steps ({self.gradient_accumulation_steps})",
        )


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How the devices are laid out; one axis may be -1, which takes the devices that are left."""

    replica: int = 1
    """Slices that share the batch, each with all the parameters: the axis that crosses the slow network."""
    data: int = -1
    """Devices that share the batch, each with all the parameters."""
    fsdp: int = 1
    """Devices that share the batch and the parameters."""
    tensor: int = 1
    """Devices that share each matrix product: its heads, its feed-forward width, its vocabulary."""
    sequence: int = 1
    """Devices that share each row: long inputs, each device a stretch of them."""

    def __post_init__(self) -> None:
        sizes = dataclasses.asdict(self)
        for name, size in sizes.items():
            check(size == -1 or size > 0, f"mesh.{name}", size, "-1 (what is left) or a number above 0")
        free = [name for name, size in sizes.items() if size == -1]
        check(len(free) <= 1, "mesh", f"-1 for {' and '.join(free)}", "-1 for one axis at most")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: its data, model, optimizer, loop and mesh."""

    seed: int = 0
    """Seed of everything random: parameters, data order, masks, dropout."""
    init_from: str = ""
    """A run or checkpoint folder whose parameters start this run (step and optimizer start anew)."""
    model_from_init: bool = False
    """Take `model` and the tokenizer from `init_from` too; what this file says of them does not count then."""
    new_heads: tuple[Head, ...] = ()
    """Heads of `model` that start at random, `init_from` having none, or another to be forgotten."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        check(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2**32 - 1")
        check(
            set(self.new_heads) <= set(self.model.heads), "new_heads", self.new_heads, "heads that are in model.heads"
        )
        check(
            self.data.max_seq_length <= self.model.max_length,
            "data.max_seq_length",
            self.data.max_seq_length,
            "at most model.max_position_embeddings"
            f"{' - model.position_offset' if self.model.position_offset else ''} ({self.model.max_length})",
        )
        check(
            self.mesh.sequence == 1 or self.model.kernels == "xla",
            "mesh.sequence",
            self.mesh.sequence,
            "1, for model.kernels pallas",
        )
        check(
            self.optimizer.warmup_steps <= self.train.steps,
            "optimizer.warmup_steps",
            self.optimizer.warmup_steps,
            f"at most train.steps ({self.train.steps})",
        )


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain nested dicts, lists and numbers, for JSON."""
    return {
        f.name: to_dict(value)
        if dataclasses.is_dataclass(value)
        else list(value)
        if isinstance(value, tuple)
        else value
        for f in dataclasses.fields(config)
        for value in [getattr(config, f.name)]
    }


def from_dict(kind: type[T], values: dict[str, Any], where: str = "config") -> T:
    """The inverse of `to_dict`; unknown fields and wrong types raise `UserError`, missing ones take the default."""
    check(isinstance(values, dict), where, repr(values), "an object")
    known = typing.get_type_hints(kind)
    made: dict[str, Any] = {}
    for name, value in values.items():
        check(name in known, where, f"the field {name!r}", f"one of {', '.join(known)}")
        hint = known[name]
        if hint == Remat and isinstance(value, bool):  # as it was written before there were several policies
            value = "full" if value else "none"
        if dataclasses.is_dataclass(hint):
            made[name] = from_dict(typing.cast(type, hint), value, f"{where}.{name}")
        else:
            made[name] = _value(hint, value, f"{where}.{name}")
    return kind(**made)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        check(value in typing.get_args(hint), where, repr(value), f"one of {', '.join(typing.get_args(hint))}")
        return value
    if origin is tuple:
        check(isinstance(value, list | tuple), where, repr(value), "a list")
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        check(abs(value) < 2**63, where, f"an integer of {value.bit_length()} bits", "a smaller one")
        return float(value)
    good = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    check(good, where, repr(value), f"a value of type {hint.__name__}")
    return value


def load_config(path: str) -> Config:
    """The configuration that the Python file at `path` builds with its `get_config()`.

    Raises `UserError` when the file is missing, cannot be run, or gives no `Config`.
    """
    module = types.ModuleType("config_file")
    module.__file__ = path
    try:
        with open(path, encoding="utf-8") as file:
            source = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a configuration ({error})") from error
    try:
        exec(compile(source, path, "exec"), module.__dict__)
        config = module.get_config()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:
        raise UserError(f"{path}: is no working configuration ({type(error).__name__}: {error})") from error
    check(isinstance(config, Config), path, f"get_config() giving {type(config).__name__}", "a bertjax Config")
    return config
