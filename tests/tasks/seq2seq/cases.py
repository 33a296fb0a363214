"""A small sequence-to-sequence task, its parameters, batches and compiled functions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from bertjax.model import functional
from bertjax.model.layout import ANYWHERE
from bertjax.tasks.seq2seq import decode, decoder
from bertjax.tasks.seq2seq.decode import Search
from bertjax.tasks.seq2seq.task import Seq2Seq
from tests.factory import SMALL_MODEL

WORDS = [*"abcdefghijklmnop", "don", "'", "t", ".", "##s"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
PAD, CLS, SEP = 0, 2, 3
# Weights of a size that makes predictions differ from place to place.
MODEL = dataclasses.replace(SMALL_MODEL, vocab_size=32, initializer_range=0.3, heads=("mlm",))
TINY = dataclasses.replace(
    MODEL, vocab_size=8, hidden_size=8, max_position_embeddings=8, initializer_range=0.6
)
SEEDS = st.integers(0, 2**31 - 1)
LETTERS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6).map(" ".join)


def search_of(config=MODEL, length=8, beam_size=1, alpha=0.6):
    return Search(CLS, SEP, PAD, config.vocab_size - 1, length, beam_size, alpha)


# One task, and batches of one shape: programs take longer to compile than to run.
TASK = Seq2Seq("reverse", search_of(), label_smoothing=0.1)


@functools.partial(jax.jit, static_argnums=0)
def encoder_of(config, seed):
    return functional.init(config, jax.random.key(seed))


@functools.partial(jax.jit, static_argnums=0)
def decoder_of(config, seed):
    return decoder.init(config, jax.random.key(seed))


@functools.cache
def params_of_task(config=MODEL, seed=0):
    return {**encoder_of(config, seed), "tasks": {"reverse": decoder_of(config, seed + 1)}}


def pairs_batch(rng, rows=4, length=8, target_length=8, vocab_size=31):
    sources, targets = rng.integers(2, length + 1, rows), rng.integers(2, target_length + 1, rows)
    mask = np.arange(length)[None, :] < sources[:, None]
    places = np.arange(target_length)[None, :]
    ids = rng.integers(4, vocab_size, (rows, target_length)) * (places < targets[:, None])
    ids[:, 0], ids[np.arange(rows), targets - 1] = CLS, SEP
    return {
        "input_ids": (rng.integers(4, vocab_size, (rows, length)) * mask).astype(np.int32),
        "input_mask": mask.astype(np.int32),
        "segment_ids": np.zeros((rows, length), np.int32),
        "target_ids": ids.astype(np.int32),
        "item_weights": np.ones(rows, np.float32),
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def scores_of(task, config, params, batch, key=None):
    return task.logits(config, params, batch, key=key, layout=ANYWHERE)


@functools.partial(jax.jit, static_argnums=(0, 1))
def loss_and_gradient(task, config, params, batch, key=None):
    def loss(params):
        sums = task.sums(task.logits(config, params, batch, key=key, layout=ANYWHERE), batch)
        return sums["loss"] / task.count(batch), sums

    return jax.value_and_grad(loss, has_aux=True)(params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def generated(task, config, params, batch):
    return task.generate(
        config, params, {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
    )


@functools.partial(jax.jit, static_argnums=(0, 2))
def encoded(config, seed, rows=4):
    """A decoder, what it attends to, and which of that is real."""
    keys = jax.random.split(jax.random.key(seed), 3)
    memory = jax.random.normal(keys[0], (rows, 6, config.hidden_size))
    mask = jnp.arange(6)[None, :] < jax.random.randint(keys[1], (rows, 1), 1, 7)
    return decoder.init(config, keys[2]), memory, mask.astype(jnp.int32)


teacher = jax.jit(decoder.logits, static_argnums=0)
greedy = jax.jit(decode.greedy, static_argnums=(0, 4))
beam_search = jax.jit(decode.beam_search, static_argnums=(0, 4))
targets_of = jax.jit(decode.generate, static_argnums=(0, 4))
