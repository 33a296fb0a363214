"""The batch of a configuration, without its numbers."""

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.data.records import record_format as shards
from bertjax.masking.selection import Vocabulary
from bertjax.parallel import rules


def abstract_batch(config: Config, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that `bertjax.data.pipeline` gives a step of `config`, from shards prepared for
    it.
    """
    lengths = dict(shards.schema_of(config.data, "train").lengths)
    lengths.pop("word_starts", None)
    if config.data.dynamic_masking and config.data.masking != "token":
        lengths["word_starts"] = config.data.max_seq_length
    if len(config.data.mixture) > 1:
        lengths["corpus_ids"] = 1
    layout, rows = rules.batch_sharding(mesh), config.train.batch_size
    return {
        name: jax.ShapeDtypeStruct((rows, length), np.dtype(shards.feature_dtype(name)), sharding=layout)
        for name, length in lengths.items()
    }


def abstract_vocabulary(config: Config) -> Vocabulary | None:
    """What the step must know to mask, where it masks; which ids are special makes no difference to
    its cost.
    """
    return (
        Vocabulary(4, (0, 1, 2, 3, 4), config.tokenizer.vocab_size)
        if config.data.dynamic_masking
        else None
    )
