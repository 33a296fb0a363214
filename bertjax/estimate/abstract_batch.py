"""Abstract batches: shape, dtype and sharding of the arrays in a configuration's batch."""

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.data.records import record_format
from bertjax.masking.selection import Vocabulary
from bertjax.parallel import rules


def abstract_batch(config: Config, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the arrays that a step of `config` gets from shards prepared for it.

    They are the arrays of `bertjax.data.pipeline.train_batches`, each `[B, length]`.
    """
    lengths = dict(record_format.schema_of(config.data, "train").lengths)
    # As in the pipeline, the step gets the word starts only if it masks more than single tokens.
    lengths.pop("word_starts", None)
    if config.data.dynamic_masking and config.data.masking != "token":
        lengths["word_starts"] = config.data.max_seq_length
    if len(config.data.mixture) > 1:
        lengths["corpus_ids"] = 1
    sharding, batch_size = rules.batch_sharding(mesh), config.train.batch_size
    arrays = {}
    for name, length in lengths.items():
        dtype = np.dtype(record_format.feature_dtype(name))
        arrays[name] = jax.ShapeDtypeStruct((batch_size, length), dtype, sharding=sharding)
    return arrays


def abstract_vocabulary(config: Config) -> Vocabulary | None:
    """Return a vocabulary for a step that masks; None if the batches are masked already.

    The ids of its special tokens are arbitrary, because they do not change the step's cost.
    """
    if not config.data.dynamic_masking:
        return None
    return Vocabulary(4, (0, 1, 2, 3, 4), config.tokenizer.vocab_size)
