"""Dynamic masks: the train step chooses new masks at every step, from (seed, step) alone."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import DataConfig
from bertjax.masking.adaptive import WEIGHTS
from bertjax.masking.selection import ArrayLibrary, Uniform, Vocabulary, mask_tokens
from bertjax.types import Batch

REMOVED = ("word_starts", WEIGHTS)
"""Arrays of a batch that masking alone reads."""


def mask_batch(
    batch: Batch,
    config: DataConfig,
    vocabulary: Vocabulary,
    key: Array,
    mlm_probability: ArrayLike | None = None,
) -> Batch:
    """Return `batch` with the masked-word features of `mask_tokens` in place of `word_starts`.

    The batch holds `input_ids`, `input_mask` and, unless single tokens are masked, `word_starts`,
    all int32 [B, L]. `key` is the PRNG key of this step's masks; with Threefry keys the masks do
    not depend on the mesh. `mlm_probability`, float32 [], is that of `config` unless given. Weights
    of the tokens in the batch (`adaptive.WEIGHTS`) are used and taken out.
    """
    if mlm_probability is None:
        mlm_probability = config.mlm_probability
    ids = jnp.asarray(batch["input_ids"])
    word_starts = _word_starts(batch, ids.shape)
    others = {name: values for name, values in batch.items() if name not in REMOVED}
    return others | mask_tokens(
        JAX,
        ids,
        jnp.asarray(batch["input_mask"]),
        word_starts,
        vocabulary=vocabulary,
        masking=config.masking,
        mlm_probability=mlm_probability,
        max_predictions=config.max_predictions_per_seq,
        shares=config.mask_shares,
        uniform=_uniform(key),
        weights=batch.get(WEIGHTS),
    )


def _word_starts(batch: Batch, shape: tuple[int, ...]) -> Array:
    if "word_starts" not in batch:
        # Where single tokens are masked, the pipeline leaves the words out and nothing asks for
        # them.
        return jnp.ones(shape, bool)
    return batch["word_starts"] > 0


def greedy(sizes: Array, order: Array, budget: Array) -> Array:
    """`bertjax.masking.selection.GreedySelection` in passes over whole rows.

    Each pass looks at the units that alone would fit into the rest of the budget. It takes them in
    order, up to the first one that does not fit together with those before it. In practice two or
    three passes are enough. A loop over single units would take up to L sequential steps.
    """
    # What is left only shrinks, so a unit that does not fit now never will. That is why the passes
    # take the same units as a loop over single ones.
    lengths = jnp.take_along_axis(sizes, order, 1)

    def remaining(taken: Array) -> tuple[Array, Array]:
        left = budget - jnp.sum(jnp.where(taken, lengths, 0), axis=1, keepdims=True)
        return left, (lengths > 0) & ~taken & (lengths <= left)

    def unfinished(taken: Array) -> Array:
        _, fits = remaining(taken)
        return fits.any()

    def take(taken: Array) -> Array:
        left, fits = remaining(taken)
        return taken | (fits & (jnp.cumsum(jnp.where(fits, lengths, 0), axis=1) <= left))

    nothing = jnp.zeros(lengths.shape, bool)
    taken = jax.lax.while_loop(unfinished, take, nothing)
    # `order` is a permutation, so this brings each unit back to its column.
    return put(nothing, order, taken)


def put(array: Array, columns: Array, values: Array) -> Array:
    """`ArrayLibrary.put` with one scatter per row.

    With a single scatter for all rows, every device would fetch the whole batch; a test of the
    compiled program checks that this does not happen.
    """

    def put_in_row(row: Array, row_columns: Array, row_values: Array) -> Array:
        return row.at[row_columns].set(row_values)

    return jax.vmap(put_in_row)(array, columns, values)


def put_predicted(rows_BxL: Array, batch: Batch, values_BxP: Array) -> Array:
    """Return the rows with other values at the predicted positions of `batch`."""
    # Entries that are padding all have the position 0, so theirs is moved behind the row's end,
    # where a scatter drops it.
    used = jnp.asarray(batch["masked_lm_weights"]) > 0
    places = jnp.where(used, jnp.asarray(batch["masked_lm_positions"]), rows_BxL.shape[1])
    return put(rows_BxL, places, values_BxP)


JAX = ArrayLibrary(jnp, put, greedy)


def _uniform(key: Array) -> Uniform:
    """Return a source of uniform numbers whose nth call uses `key` with n folded in."""
    calls = 0

    def draw(shape: tuple[int, ...]) -> Array:
        nonlocal calls
        # Counted while the step is traced: in the program each call has a number of its own.
        calls += 1
        # Not `split`, which would have to know the number of calls before the first.
        return jax.random.uniform(jax.random.fold_in(key, calls), shape)

    return draw
