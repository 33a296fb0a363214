"""Vectors of texts from an encoder that was not fine-tuned (section 5.3 of arXiv 1810.04805)."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import MeshConfig, ModelConfig
from bertjax.data.ragged import ranges
from bertjax.data.row_layout import Texts
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.inference.given_texts import each_text
from bertjax.inference.lengths import (
    check_rows_fit,
    longest_row,
    padded_length,
    row_memory_errors,
)
from bertjax.inference.static_table import StaticTable, cut, is_static_table, read_static_table
from bertjax.model import functional
from bertjax.model.functional import Encoded, Params
from bertjax.parallel.announce import announce_once
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import batch_parts, replicated
from bertjax.progress import Progress, silent
from bertjax.training.saved_model import TrainedModel, opened_model
from bertjax.types import Batch

# Four of the choices in table 7 of arXiv 1810.04805. The sum of four layers is weighted there; here
# all four have the same weight.
Layers = Literal["last", "second_to_last", "sum_last_four", "concat_last_four"]
Pooling = Literal["cls", "mean", "max", "tokens"]
LAYERS_READ = {"last": 1, "second_to_last": 2, "sum_last_four": 4, "concat_last_four": 4}

WINDOW = 64  # number of batches whose texts are sorted by length together and held in memory
WINDOW_CHARACTERS = 1 << 24  # a window ends at this many characters: 16 MB of ASCII
WINDOW_VALUES = 1 << 26  # about the most values in a window of token vectors: 256 MB as float32

log = logging.getLogger("bertjax")


@dataclass(frozen=True)
class EmbedOptions:
    """Choices of `embed`."""

    layers: Layers = "last"
    """Layers read: the last, the one before it, the sum or the concatenation of the last four."""
    pooling: Pooling = "mean"
    """Vector of a text: that of [CLS], the mean or maximum over tokens, or one for each token."""
    batch_size: int = 64
    """Texts computed together; rounded up to a multiple of the number of local devices."""
    max_seq_length: int | None = None
    """Maximum number of ids of a text, special tokens included.

    None means 512, or the number of the model's positions if it is smaller.
    """

    def __post_init__(self) -> None:
        _check_choice("layers", self.layers, get_args(Layers))
        _check_choice("pooling", self.pooling, get_args(Pooling))
        check(
            self.batch_size > 0,
            where="batch_size",
            found=self.batch_size,
            expected="a number above 0",
        )

    @property
    def keeps_tokens(self) -> bool:
        """True if there is a vector for each token, not one for each text."""
        return self.pooling == "tokens"

    def width(self, model: TrainedModel | StaticTable) -> int:
        """Return the number of values in a vector: D, or 4D for `concat_last_four`."""
        if isinstance(model, StaticTable):
            return model.width
        layers = 4 if self.layers == "concat_last_four" else 1
        return model.config.model.hidden_size * layers

    def longest(self, model: TrainedModel | StaticTable) -> int | None:
        """Return the number of ids to which a text is cut; None: to none."""
        if isinstance(model, StaticTable):
            return self.max_seq_length
        return longest_row(model.config.model, self.max_seq_length)


class Vectors(NamedTuple):
    """The vectors of consecutive texts."""

    vectors: np.ndarray
    """float32 [texts, W]; with pooling `tokens`, [tokens, W], one text after another."""
    ids: np.ndarray
    """int32 [tokens], the ids of all texts, special tokens included."""
    offsets: np.ndarray
    """int64 [texts + 1], the index in `ids` at which each text begins, and the end."""
    truncated: int
    """Number of texts that were cut to the maximum length."""


class _EncodedTexts(NamedTuple):
    """The ids of consecutive texts, before their vectors are computed."""

    ids: np.ndarray
    offsets: np.ndarray
    truncated: int


def layer_vectors(encoded: Encoded, layers: Layers) -> Array:
    """Return the output of the chosen layers at each token, [B, L, D].

    For `concat_last_four` it is [B, L, 4D] and begins with the lowest of the four layers. The type
    is the model's, except that `sum_last_four` is float32. Every choice except `last` needs
    `encode(..., keep_layers=True)`. Raises `UserError` if the model has too few layers.
    """
    if layers == "last":
        return encoded.hidden_BxLxD
    if encoded.layers_NxBxLxD is None:
        raise ValueError(f"{layers} needs encode(..., keep_layers=True)")
    _check_layers(len(encoded.layers_NxBxLxD), layers)
    if layers == "second_to_last":
        return encoded.layers_NxBxLxD[-2]
    last_four = encoded.layers_NxBxLxD[-4:]
    if layers == "sum_last_four":
        # bfloat16 has 8 bits of mantissa: its sum would lose what a layer of small values adds.
        return jnp.sum(last_four, axis=0, dtype=jnp.float32)
    return jnp.concatenate(list(last_four), axis=-1)


def pool_tokens(vectors_BxLxD: Array, input_mask: ArrayLike, pooling: Pooling) -> Array:
    """Return one vector for each row, float32 [B, D]; with `tokens` all vectors, float32 [B, L, D].

    `input_mask` [B, L] is 1 at tokens and 0 at padding; each row must have a token. `cls` is the
    first token's vector as it is, without the pooler. `mean` and `max` include special tokens, as
    sentence-transformers does (arXiv 1908.10084).
    """
    vectors_BxLxD = vectors_BxLxD.astype(jnp.float32)
    real_BxLx1 = (jnp.asarray(input_mask) > 0)[:, :, None]
    if pooling == "cls":
        return vectors_BxLxD[:, 0]
    if pooling == "mean":
        counts_Bx1 = jnp.sum(real_BxLx1, axis=1, dtype=jnp.float32)
        return jnp.sum(vectors_BxLxD * real_BxLx1, axis=1) / counts_Bx1
    if pooling == "max":
        # -inf at padding: a zero would win over negative values.
        return jnp.max(jnp.where(real_BxLx1, vectors_BxLxD, -jnp.inf), axis=1)
    return vectors_BxLxD


def opened_for_embed(
    model: TrainedModel | StaticTable | epath.PathLike,
) -> TrainedModel | StaticTable:
    """Return `model` itself, or what is in its folder: a run, a checkpoint, a table of vectors."""
    if isinstance(model, TrainedModel | StaticTable):
        return model
    return read_static_table(model) if is_static_table(model) else opened_model(model)


def embed(
    model: TrainedModel | StaticTable | epath.PathLike,
    texts: Iterable[str],
    *,
    layers: Layers = "last",
    pooling: Pooling = "mean",
    batch_size: int = 64,
    max_seq_length: int | None = None,
) -> np.ndarray | list[np.ndarray]:
    """Return a vector for each text, float32 [texts, W]; with `tokens` a list of [tokens, W].

    `model` is a model that `load_model` returned, or a run or checkpoint folder, or the folder of a
    table of word vectors (`bertjax distill --static`). The options are
    those of `EmbedOptions`; W is the hidden size, or four times it for `concat_last_four`. If texts
    are cut to `max_seq_length` ids, a warning in the log says how many. If the vectors of all texts
    do not fit into memory, use `bertjax.inference.embed.embed_windows`.

    Raises `UserError` if an option is out of range, `texts` is one string or has anything else than
    strings, or the model has too few layers or a smaller vocabulary than the tokenizer.

    >>> import bertjax
    >>> bertjax.embed("runs/tiny", ["the dog sees the cat.", "no one."], layers="last").shape
    (2, 32)
    """
    model = opened_for_embed(model)
    options = EmbedOptions(layers, pooling, batch_size, max_seq_length)
    parts = list(embed_windows(model, texts, options))
    truncated = sum(part.truncated for part in parts)
    if truncated:
        log.warning(
            "texts longer than %d ids, which were cut to them: %d of %d",
            options.longest(model),
            truncated,
            sum(len(part.offsets) - 1 for part in parts),
        )
    if options.keeps_tokens:
        by_text: list[np.ndarray] = []
        for part in parts:
            by_text += np.split(part.vectors, part.offsets[1:-1])
        return by_text
    # An empty array is put first: without any text, NumPy would have nothing to concatenate.
    none = np.zeros((0, options.width(model)), np.float32)
    return np.concatenate([none, *(part.vectors for part in parts)])


def embed_windows(
    model: TrainedModel | StaticTable,
    texts: Iterable[str],
    options: EmbedOptions | None = None,
    *,
    progress: Progress = silent,
    total: int = 0,
) -> Iterator[Vectors]:
    """Yield the vectors of `texts`, in order, a window of texts at a time.

    Each text becomes a row, such as [CLS] text [SEP], cut to `options.max_seq_length` ids. A window
    has the texts of `WINDOW` batches, or fewer if they are long. Its texts are sorted by length,
    the longest first, and computed in batches. Each batch is padded to one of few lengths
    (`padded_length`) and divided among all local devices; each device has all parameters. Matrix
    products are computed in the model's `dtype`, sums over tokens and layers in float32. `progress`
    is called with the number of texts done and with `total` (0: not known).

    With a table of word vectors nothing is computed but means: a text has no special tokens, and is
    cut only where `options` say so.

    Raises `UserError` as `embed` does.
    """
    texts = each_text(texts, "texts")
    options = options or EmbedOptions()
    if isinstance(model, StaticTable):
        _check_suits_table(options)
        yield from _table_windows(model, texts, options, progress, total)
        return
    _check_fits(model.config.model, model.tokenizer, options)
    _say_what_is_missing(model)
    with row_memory_errors(options.batch_size):
        yield from _computed_windows(model, texts, options, progress, total)


def _computed_windows(
    model: TrainedModel, texts: Iterable[str], options: EmbedOptions, progress: Progress, total: int
) -> Iterator[Vectors]:
    config, tokenizer = model.config.model, model.tokenizer
    longest = longest_row(config, options.max_seq_length)
    # Local devices only: the texts are this process's own, and no other process takes part.
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    devices = batch_parts(mesh)
    # Rounded up, as all devices must have the same number of rows.
    batch_size = -(-options.batch_size // devices) * devices
    params = jax.device_put(model.inference_params, replicated(mesh))
    width = options.width(model)
    announce_once("the vectors of texts")
    done = 0
    token_values = width if options.keeps_tokens else 0
    for encoded in _windows(tokenizer, texts, WINDOW * batch_size, longest, token_values):
        lengths = np.diff(encoded.offsets)
        # The longest first: `_batch` takes the length of the batch from its first text.
        order = np.argsort(-lengths, kind="stable")
        count = len(encoded.ids) if options.keeps_tokens else len(lengths)
        vectors = np.empty((count, width), np.float32)
        running: deque[tuple[np.ndarray, Array]] = deque()
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            batch = _batch(encoded, chosen, batch_size, longest, tokenizer)
            arrays = global_batch(mesh, batch, batch_size)
            outputs = _features(config, params, arrays, options.layers, options.pooling)
            running.append((chosen, outputs))
            # One batch is left running, except at the window's end: JAX computes it while the
            # outputs of the batch before it are copied to the host.
            is_last = begin + batch_size >= len(order)
            left_running = 0 if is_last else 1
            while len(running) > left_running:
                chosen, outputs = running.popleft()
                _store(vectors, np.asarray(outputs), encoded.offsets, chosen, options.pooling)
                done += len(chosen)
                progress("embed", done, total)
        yield Vectors(vectors, encoded.ids, encoded.offsets, encoded.truncated)


def _table_windows(
    table: StaticTable, texts: Iterable[str], options: EmbedOptions, progress: Progress, total: int
) -> Iterator[Vectors]:
    done = 0
    for group in _groups(texts, WINDOW * options.batch_size):
        ids, offsets, truncated = cut(*table.encode(group), options.max_seq_length)
        done += len(group)
        progress("embed", done, total)
        yield Vectors(table.text_vectors(ids, offsets), ids, offsets, truncated)


def _check_suits_table(options: EmbedOptions) -> None:
    """Raise `UserError` for a choice that a table of word vectors does not have."""
    for name, found, expected in (
        ("layers", options.layers, "last"),
        ("pooling", options.pooling, "mean"),
    ):
        check(
            found == expected,
            where=name,
            found=repr(found),
            expected=f"{expected}: a table of word vectors has no other",
        )
    check(
        options.max_seq_length is None or options.max_seq_length > 0,
        where="max_seq_length",
        found=options.max_seq_length,
        expected="a number above 0",
    )


def _say_what_is_missing(model: TrainedModel) -> None:
    """Warn of what changes the vectors of a model where it comes from, and not here."""
    if model.not_taken:
        log.warning(
            "%s: vectors without what sentence-transformers does in this model: %s",
            model.run_dir,
            ", ".join(model.not_taken),
        )


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    check(value in allowed, where=name, found=repr(value), expected=f"one of {', '.join(allowed)}")


def _check_layers(count: int, layers: Layers) -> None:
    check(
        count >= LAYERS_READ[layers],
        where=f"layers {layers}",
        found=f"a model of {count}",
        expected=f"{LAYERS_READ[layers]} or more",
    )


def _check_fits(config: ModelConfig, tokenizer: Tokenizer, options: EmbedOptions) -> None:
    _check_layers(config.num_hidden_layers, options.layers)
    check(
        # JAX raises nothing for an id outside of the table of embeddings.
        tokenizer.vocab_size <= config.vocab_size,
        where="tokenizer",
        found=f"{tokenizer.vocab_size} entries",
        expected=f"at most model.vocab_size {config.vocab_size}",
    )
    check_rows_fit(config, options.batch_size)


@partial(jax.jit, static_argnums=(0, 3, 4))
def _features(
    config: ModelConfig, params: Params, batch: Batch, layers: Layers, pooling: Pooling
) -> Array:
    # To keep the outputs of all N layers takes N times the memory of the last output alone.
    encoded = functional.encode(config, params, batch, keep_layers=layers != "last")
    return pool_tokens(layer_vectors(encoded, layers), batch["input_mask"], pooling)


def _windows(
    tokenizer: Tokenizer, texts: Iterable[str], size: int, longest: int, token_values: int
) -> Iterator[_EncodedTexts]:
    """Yield the ids of `size` texts at a time, or of fewer texts if they are long.

    `token_values` is the number of values that are kept for each token (0: no vectors of tokens). A
    window has about `WINDOW_VALUES` such values at most.
    """
    specials = tokenizer.layout.single_specials
    for group in _groups(texts, size):
        inner, begins = tokenizer.encode_batch(group)
        lengths = np.minimum(np.diff(begins), longest - specials)
        truncated = lengths < np.diff(begins)
        # The window of each text. A new one begins when the values of all texts so far reach the
        # next multiple of `WINDOW_VALUES`.
        window = np.cumsum((lengths + specials) * token_values) // WINDOW_VALUES
        last_of_window = np.flatnonzero(np.diff(window))
        for chosen in np.split(np.arange(len(group)), last_of_window + 1):
            rows = tokenizer.layout.rows(Texts(inner, begins[chosen], lengths[chosen]))
            yield _EncodedTexts(rows.ids, rows.offsets, int(truncated[chosen].sum()))


def _groups(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield `size` texts at a time, or fewer once they have `WINDOW_CHARACTERS` characters."""
    group: list[str] = []
    characters = 0
    for text in texts:
        group.append(text)
        characters += len(text)
        if len(group) == size or characters >= WINDOW_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _batch(
    encoded: _EncodedTexts,
    chosen: np.ndarray,
    batch_size: int,
    longest: int,
    tokenizer: Tokenizer,
) -> dict[str, np.ndarray]:
    """Return the batch of the `chosen` texts, the longest first, padded.

    A short batch is filled up to `batch_size` rows, with rows that have [CLS] only. For a row
    without any token the mean would divide by zero.
    """
    begins, ends = encoded.offsets[chosen], encoded.offsets[chosen + 1]
    length = padded_length(int(ends[0] - begins[0]), longest)
    lengths = np.ones(batch_size, np.int64)
    lengths[: len(chosen)] = ends - begins
    mask = np.arange(length)[None, :] < lengths[:, None]
    ids = np.full(mask.shape, tokenizer.pad_id, np.int32)
    ids[len(chosen) :, 0] = tokenizer.cls_id
    ids[: len(chosen)][mask[: len(chosen)]] = encoded.ids[ranges(begins, ends)]
    return {"input_ids": ids, "input_mask": mask.astype(np.int32)}


def _store(
    vectors: np.ndarray,
    outputs: np.ndarray,
    offsets: np.ndarray,
    chosen: np.ndarray,
    pooling: Pooling,
) -> None:
    """Copy a batch's outputs into the window's `vectors`, to the positions of the batch's texts."""
    if pooling != "tokens":
        vectors[chosen] = outputs[: len(chosen)]
        return
    for output, text in zip(outputs, chosen, strict=False):  # a filled-up batch has more rows
        begin, end = offsets[text], offsets[text + 1]
        vectors[begin:end] = output[: end - begin]
