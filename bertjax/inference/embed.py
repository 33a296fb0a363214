"""Vectors of text from a trained encoder, for people who do not fine-tune (section 5.3 of arXiv
1810.04805).
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import MeshConfig, ModelConfig
from bertjax.data.ragged import ranges
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.model import functional
from bertjax.model.functional import Encoded, Params
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import batch_parts, replicated
from bertjax.progress import Progress, silent

Layers = Literal["last", "second_to_last", "sum_last_four", "concat_last_four"]
Pooling = Literal["cls", "mean", "max", "tokens"]
LAYERS_READ = {"last": 1, "second_to_last": 2, "sum_last_four": 4, "concat_last_four": 4}

WINDOW = 64  # batches that are sorted by length together, and held in memory
WINDOW_CHARACTERS = 1 << 24  # of text that a window holds, at most
WINDOW_VALUES = 1 << 26  # of vectors that a window of tokens holds, about: 256 MB

log = logging.getLogger("bertjax")


class Vectors(NamedTuple):
    """The vectors of some texts that follow each other."""

    vectors: np.ndarray
    """float32, a row a text; with pooling `tokens` a row a token, of all texts one after another."""
    ids: np.ndarray
    """int32, the tokens' ids of all texts, [CLS] and [SEP] among them."""
    offsets: np.ndarray
    """Where each text begins in `ids`, int64 `[texts + 1]`."""
    truncated: int
    """How many of the texts were cut to the longest length."""


def layer_vectors(encoded: Encoded, layers: Layers) -> Array:
    """The chosen layers' output at each token: [B, L, D], or [B, L, 4D] for `concat_last_four`, in
    the model's type.

    `concat_last_four` begins with the lowest of the four. All but `last` need `encode(...,
    keep_layers=True)`. Raises `UserError` where the model has too few layers.
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
        return jnp.sum(last_four, axis=0, dtype=jnp.float32)
    return jnp.concatenate(list(last_four), axis=-1)


def pool_tokens(vectors_BxLxD: Array, input_mask: ArrayLike, pooling: Pooling) -> Array:
    """One vector a row, [B, D] float32, of its tokens' vectors; `tokens`: all of them, [B, L, D]
    float32.

    `input_mask` [B, L] is 1 at real tokens, and at one or more in each row. `cls` is the first
    token's vector as it is, without the pooler's layer; `mean` and `max` are over the real tokens,
    [CLS] and [SEP] among them (as arXiv 1908.10084 and its library sentence-transformers take
    them).
    """
    vectors_BxLxD = vectors_BxLxD.astype(jnp.float32)
    real_BxLx1 = (jnp.asarray(input_mask) > 0)[:, :, None]
    if pooling == "cls":
        return vectors_BxLxD[:, 0]
    if pooling == "mean":
        return jnp.sum(vectors_BxLxD * real_BxLx1, axis=1) / jnp.sum(
            real_BxLx1, axis=1, dtype=jnp.float32
        )
    if pooling == "max":
        return jnp.max(jnp.where(real_BxLx1, vectors_BxLxD, -jnp.inf), axis=1)
    return vectors_BxLxD


def embed(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    layers: Layers = "last",
    pooling: Pooling = "mean",
    batch_size: int = 64,
    max_seq_length: int | None = None,
) -> np.ndarray | list[np.ndarray]:
    """A vector for each text, in their order: [texts, W] float32; with `tokens`, a list of [tokens,
    W] arrays.

    W is D, or 4D for `concat_last_four`. As `embed_windows`, which is for more texts than memory
    holds. Says in the log how many texts were cut.
    """
    found = list(
        embed_windows(
            config,
            params,
            tokenizer,
            texts,
            layers=layers,
            pooling=pooling,
            batch_size=batch_size,
            max_seq_length=max_seq_length,
        )
    )
    truncated = sum(part.truncated for part in found)
    if truncated:
        length, number = (
            longest(config, max_seq_length),
            sum(len(part.offsets) - 1 for part in found),
        )
        log.warning(
            "texts longer than %d ids, which were cut to them: %d of %d", length, truncated, number
        )
    if pooling == "tokens":
        return [text for part in found for text in np.split(part.vectors, part.offsets[1:-1])]
    return np.concatenate(
        [np.zeros((0, width(config, layers)), np.float32), *(part.vectors for part in found)]
    )


def embed_windows(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    layers: Layers = "last",
    pooling: Pooling = "mean",
    batch_size: int = 64,
    max_seq_length: int | None = None,
    progress: Progress = silent,
    total: int = 0,
) -> Iterator[Vectors]:
    """The vectors of `texts`, in their order, a window of texts at a time.

    Each text is [CLS] text [SEP], an empty one [CLS] [SEP], cut to `max_seq_length` ids (2 or more;
    default: 512, or as many as the model's positions allow). Matrix products are in `config.dtype`,
    sums over tokens and layers in float32. A window is `WINDOW` batches, sorted by length, the
    longest first, each batch padded to one of few lengths (`padded_length`) and its rows shared by
    all local devices, a multiple of which `batch_size` is rounded up to. `params` are replicated.
    `progress` is told of the texts done, of `total` (0: not known).

    Raises `UserError` for an option out of range, and where the model has too few layers or a
    smaller vocabulary than the tokenizer.
    """
    _check_options(config, tokenizer, layers, pooling, batch_size)
    length = longest(config, max_seq_length)
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    parts = batch_parts(mesh)
    batch_size = -(-batch_size // parts) * parts
    params = jax.device_put(params, replicated(mesh))
    values = width(config, layers) if pooling == "tokens" else 0
    done = 0
    for ids, offsets, truncated in _windows(tokenizer, texts, WINDOW * batch_size, length, values):
        lengths = np.diff(offsets)
        rows = np.argsort(-lengths, kind="stable")
        made = np.empty(
            (len(ids) if pooling == "tokens" else len(lengths), width(config, layers)), np.float32
        )
        running: deque[tuple[np.ndarray, Array]] = deque()
        for begin in range(0, len(rows), batch_size):
            chosen = rows[begin : begin + batch_size]
            batch = _batch(ids, offsets, chosen, batch_size, length, tokenizer)
            running.append(
                (
                    chosen,
                    _features(
                        config, params, global_batch(mesh, batch, batch_size), layers, pooling
                    ),
                )
            )
            # One batch computes while the one before it is fetched.
            while len(running) > (1 if begin + batch_size < len(rows) else 0):
                chosen, vectors = running.popleft()
                _put(made, np.asarray(vectors), offsets, chosen, pooling)
                done += len(chosen)
                progress("embed", done, total)
        yield Vectors(made, ids, offsets, truncated)


def width(config: ModelConfig, layers: Layers) -> int:
    """Numbers in a vector."""
    return config.hidden_size * (4 if layers == "concat_last_four" else 1)


def longest(config: ModelConfig, max_seq_length: int | None) -> int:
    """Ids in the longest row, special tokens included; `UserError` where the positions do not allow
    so many.
    """
    length = min(512, config.max_length) if max_seq_length is None else max_seq_length
    check(
        2 <= length <= config.max_length,
        where="max_seq_length",
        found=length,
        expected=f"2 to {config.max_length}, the model's positions",
    )
    return length


def padded_length(length: int, longest: int) -> int:
    """The least of 8, 16, 24, ..., 64, 96, 128, 192, 256, 384, 512, ... that `length` fits, at most
    `longest`.

    A program is compiled for each of them that occurs. The steps of 8 are for sentences: with none
    between powers of two below 64, the sentences of STS took 15% longer.
    """
    if length <= 64:
        return min(longest, -(-length // 8) * 8)
    power = 1 << (length - 1).bit_length()
    return min(longest, power * 3 // 4 if length <= power * 3 // 4 else power)


def _check_layers(number: int, layers: Layers) -> None:
    check(
        number >= LAYERS_READ[layers],
        where=f"layers {layers}",
        found=f"a model of {number}",
        expected=f"{LAYERS_READ[layers]} or more",
    )


def _check_options(
    config: ModelConfig, tokenizer: Tokenizer, layers: Layers, pooling: Pooling, batch_size: int
) -> None:
    for name, value, allowed in (
        ("layers", layers, get_args(Layers)),
        ("pooling", pooling, get_args(Pooling)),
    ):
        check(
            value in allowed, where=name, found=repr(value), expected=f"one of {', '.join(allowed)}"
        )
    _check_layers(config.num_hidden_layers, layers)
    check(batch_size > 0, where="batch_size", found=batch_size, expected="a number above 0")
    rows = config.vocab_size
    check(
        tokenizer.vocab_size <= rows,
        where="tokenizer",
        found=f"{tokenizer.vocab_size} entries",
        expected=f"at most model.vocab_size {rows}",
    )


@partial(jax.jit, static_argnums=(0, 3, 4))
def _features(
    config: ModelConfig, params: Params, batch: Any, layers: Layers, pooling: Pooling
) -> Array:
    encoded = functional.encode(config, params, batch, keep_layers=layers != "last")
    return pool_tokens(layer_vectors(encoded, layers), batch["input_mask"], pooling)


def _windows(
    tokenizer: Tokenizer, texts: Iterable[str], size: int, longest: int, values: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """(ids, offsets, truncated) of `size` texts at a time, of fewer where they are long.

    With `values` numbers kept for each token, a window has about `WINDOW_VALUES` of them.
    """
    for some in _groups(texts, size):
        inner, begins = tokenizer.encode_batch(some)
        lengths = np.minimum(np.diff(begins), longest - 2)
        truncated = lengths < np.diff(begins)
        window = np.cumsum((lengths + 2) * values) // WINDOW_VALUES
        for rows in np.split(np.arange(len(some)), np.flatnonzero(np.diff(window)) + 1):
            offsets = np.concatenate([[0], np.cumsum(lengths[rows] + 2)])
            ids = np.empty(offsets[-1], np.int32)
            ids[ranges(offsets[:-1] + 1, offsets[1:] - 1)] = inner[
                ranges(begins[rows], begins[rows] + lengths[rows])
            ]
            ids[offsets[:-1]], ids[offsets[1:] - 1] = tokenizer.cls_id, tokenizer.sep_id
            yield ids, offsets, int(truncated[rows].sum())


def _groups(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """`size` texts at a time, or as many as have `WINDOW_CHARACTERS`."""
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
    ids: np.ndarray,
    offsets: np.ndarray,
    rows: np.ndarray,
    batch_size: int,
    longest: int,
    tokenizer: Tokenizer,
) -> dict[str, np.ndarray]:
    """The chosen rows, the longest first, padded; filled up to `batch_size` rows by lone [CLS]s."""
    length = padded_length(int(offsets[rows[0] + 1] - offsets[rows[0]]), longest)
    lengths = np.ones(batch_size, np.int64)
    lengths[: len(rows)] = offsets[rows + 1] - offsets[rows]
    mask = np.arange(length)[None, :] < lengths[:, None]
    filled = np.full(mask.shape, tokenizer.pad_id, np.int32)
    filled[len(rows) :, 0] = tokenizer.cls_id
    filled[: len(rows)][mask[: len(rows)]] = ids[ranges(offsets[rows], offsets[rows + 1])]
    return {"input_ids": filled, "input_mask": mask.astype(np.int32)}


def _put(
    made: np.ndarray, vectors: np.ndarray, offsets: np.ndarray, rows: np.ndarray, pooling: Pooling
) -> None:
    """Put a batch's vectors where its rows belong."""
    if pooling == "tokens":
        for vector, row in zip(vectors, rows, strict=False):
            made[offsets[row] : offsets[row + 1]] = vector[: offsets[row + 1] - offsets[row]]
    else:
        made[rows] = vectors[: len(rows)]
