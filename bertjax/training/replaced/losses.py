"""The losses of replaced-token detection as sums, and what connects the two networks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.masking.dynamic import put_predicted
from bertjax.model.layout import Layout
from bertjax.types import Batch

SEEDS = "sample_seeds"
"""Name of the array of a batch with a key for each masked position, uint32 [B, P, 2]."""


class DetectionSums(NamedTuple):
    """Float32 scalars over a set of rows; the sums of two sets add up field by field."""

    mlm_loss: Array
    """Losses of the generator at masked tokens, in nats, with what `model.z_loss` adds."""
    mlm_nll: Array
    """The negative log-likelihoods of `mlm_loss` alone, to report."""
    mlm_correct: Array
    """Masked tokens for which the true id has the generator's highest logit."""
    mlm_count: Array
    """Masked tokens."""
    detection_loss: Array
    """Binary cross-entropy of all tokens that are not padding, in nats."""
    tokens: Array
    """Tokens that are not padding."""
    replaced: Array
    """Tokens that the generator has replaced by another one."""
    found: Array
    """Replaced tokens that the discriminator calls replaced."""
    called: Array
    """Tokens that the discriminator calls replaced."""


def seeds(key: Array, shape: tuple[int, ...]) -> Array:
    """Return a key for each of [B, P] positions, as numbers, uint32 [B, P, 2].

    They are an array of the batch, so a position has the same key whatever part of the batch, or
    device, it is computed in.
    """
    return jax.random.bits(key, (*shape, 2), jnp.uint32)


def sampled(logits_BxPxV: Array, seeds_BxPx2: Array, layout: Layout) -> Array:
    """Return a word for each position, int32 [B, P], drawn from the softmax of its logits.

    The word is the one with the highest sum of logit and noise, where the noise has the Gumbel
    distribution (arXiv 1611.01144, equation 1).
    """
    count = logits_BxPxV.shape[-1]
    # Threefry by name: an array of the batch has numbers for its keys whatever JAX's default is.
    keys = jax.random.wrap_key_data(seeds_BxPx2, impl="threefry2x32")

    def noise(key: Array) -> Array:
        return jax.random.gumbel(key, (count,), jnp.float32)

    noise_BxPxV = layout(jax.vmap(jax.vmap(noise))(keys), "batch", None, "vocab")
    return jnp.argmax(logits_BxPxV + noise_BxPxV, axis=-1).astype(jnp.int32)


def corrupted(batch: Batch, samples_BxP: Array) -> tuple[Array, Array]:
    """Return the ids with the samples at masked positions, and where they differ from the text.

    Both are int32 [B, L]. A sample that is the true word is not called replaced (arXiv 2003.10555,
    section 2).
    """
    ids = jnp.asarray(batch["input_ids"])
    differs = (samples_BxP != batch["masked_lm_ids"]).astype(jnp.int32)
    replaced = put_predicted(jnp.zeros_like(ids), batch, differs)
    return put_predicted(ids, batch, samples_BxP), replaced


def detection_sums(
    logits_BxL: Array, replaced_BxL: Array, tokens_BxL: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Return the last five fields of `DetectionSums`; `tokens_BxL` is 0 at padding."""
    labels = replaced_BxL.astype(jnp.float32)
    # log(1 + exp(x)) - x y, which is -log sigmoid(x) for y = 1 and -log(1 - sigmoid(x)) for y = 0.
    losses = jax.nn.softplus(logits_BxL) - logits_BxL * labels
    called = (logits_BxL > 0).astype(jnp.float32) * tokens_BxL
    return (
        jnp.sum(losses * tokens_BxL),
        jnp.sum(tokens_BxL),
        jnp.sum(labels * tokens_BxL),
        jnp.sum(labels * called),
        jnp.sum(called),
    )
