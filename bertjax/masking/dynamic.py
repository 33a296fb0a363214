"""Masks chosen anew at every step, inside of it, from (seed, step) alone."""

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import DataConfig
from bertjax.masking import selection as masking
from bertjax.masking.selection import Library, Uniform, Vocabulary
from bertjax.types import Batch


def mask_batch(batch: Batch, config: DataConfig, vocabulary: Vocabulary, key: Array) -> Batch:
    """`batch` with the masked-word features of `bertjax.masking.selection.mask_tokens`.

    It holds `input_ids`, `input_mask` and, unless single tokens are masked, `word_starts`
    [B, L] int32. With threefry keys the masks do not depend on the mesh.
    """
    ids = jnp.asarray(batch["input_ids"])
    starts = batch["word_starts"] > 0 if "word_starts" in batch else jnp.ones(ids.shape, bool)
    rest = {name: values for name, values in batch.items() if name != "word_starts"}
    return rest | masking.mask_tokens(
        JAX,
        ids,
        jnp.asarray(batch["input_mask"]),
        starts,
        vocabulary=vocabulary,
        masking=config.masking,
        mlm_probability=config.mlm_probability,
        max_predictions=config.max_predictions_per_seq,
        uniform=_uniform(key),
    )


def greedy(sizes: Array, order: Array, wanted: Array) -> Array:
    """`bertjax.masking.selection.Greedy` in passes, not place by place: two or three of them
    suffice.

    Of those that fit into what is left, a pass takes all up to the first that no longer does.
    """
    lengths = jnp.take_along_axis(sizes, order, 1)

    def remaining(taken: Array) -> tuple[Array, Array]:
        left = wanted - jnp.sum(jnp.where(taken, lengths, 0), axis=1, keepdims=True)
        return left, (lengths > 0) & ~taken & (lengths <= left)

    def take(taken: Array) -> Array:
        left, fits = remaining(taken)
        return taken | (fits & (jnp.cumsum(jnp.where(fits, lengths, 0), axis=1) <= left))

    nothing = jnp.zeros(lengths.shape, bool)
    taken = jax.lax.while_loop(lambda taken: remaining(taken)[1].any(), take, nothing)
    return put(nothing, order, taken)


def put(array: Array, columns: Array, values: Array) -> Array:
    """`Library.put`, row by row: one scatter of all rows would make every device fetch the whole
    batch.
    """
    return jax.vmap(lambda row, places, new: row.at[places].set(new))(array, columns, values)


JAX = Library(jnp, put, greedy)


def _uniform(key: Array) -> Uniform:
    drawn = 0

    def draw(shape: tuple[int, ...]) -> Array:
        nonlocal drawn
        drawn += 1
        return jax.random.uniform(jax.random.fold_in(key, drawn), shape)

    return draw
