"""The teacher's vector of each piece of its vocabulary, alone between the special tokens."""

import re
from functools import partial

import jax
import numpy as np
from jax import Array

from bertjax.config import MeshConfig, ModelConfig
from bertjax.data.row_layout import Texts
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.inference.embed import Pooling, pool_tokens
from bertjax.inference.lengths import row_memory_errors
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import batch_parts, replicated
from bertjax.progress import Progress, silent
from bertjax.training.saved_model import TrainedModel
from bertjax.types import Batch

# Places that BERT's and Gemma's vocabularies keep free: [unused12], <unused12>.
UNUSED = re.compile(r"\[unused_?\d+\]|<unused_?\d+>")


def meant_pieces(tokenizer: Tokenizer) -> np.ndarray:
    """Return true for each entry of the vocabulary that means something in a text; bool [V].

    Special tokens mean nothing, and neither do entries such as `[unused12]` that text cannot spell.
    All others do, also a piece of bytes that is half a character: texts have its id, and the model
    has learned what it means beside the other half.
    """
    meant = np.ones(tokenizer.vocab_size, bool)
    meant[tokenizer.special_ids] = False
    if tokenizer.unk_id is not None:
        meant[tokenizer.unk_id] = False
    # A registered one is found in text: somebody has given it a meaning.
    registered = {token.content for token in tokenizer.registered}
    for i, entry in enumerate(tokenizer.pieces(range(tokenizer.vocab_size))):
        if UNUSED.fullmatch(entry) and entry not in registered:
            meant[i] = False
    return meant


def piece_vectors(
    model: TrainedModel,
    ids: np.ndarray,
    pooling: Pooling,
    *,
    batch_size: int = 512,
    progress: Progress = silent,
) -> np.ndarray:
    """Return the vector of each piece of `ids`, int [n], pooled over its row; float32 [n, D].

    A row is the piece between the special tokens of the tokenizer's layout. The id goes into the
    row as it is: as text, half a character would become another id. All rows have the same length,
    so there is no padding; each batch is divided among all local devices.

    Raises `UserError` if the model has fewer embeddings than the tokenizer has entries.
    """
    config, tokenizer = model.config.model, model.tokenizer
    length = tokenizer.layout.single_specials + 1
    check(
        # JAX raises nothing for an id outside of the table of embeddings.
        tokenizer.vocab_size <= config.vocab_size,
        where="tokenizer",
        found=f"{tokenizer.vocab_size} entries",
        expected=f"at most model.vocab_size {config.vocab_size}",
    )
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    devices = batch_parts(mesh)
    size = -(-min(batch_size, max(len(ids), 1)) // devices) * devices
    params = jax.device_put(model.params, replicated(mesh))
    texts = Texts(ids.astype(np.int32), np.arange(len(ids)), np.ones(len(ids), np.int64))
    rows = tokenizer.layout.rows(texts).ids.reshape(len(ids), length)
    vectors = np.empty((len(ids), config.hidden_size), np.float32)
    mask = np.ones((size, length), np.int32)
    with row_memory_errors(size):
        for begin in range(0, len(ids), size):
            # The last batch is filled up with any row, since a program has one shape.
            chosen = np.resize(rows[begin : begin + size], (size, length))
            batch = global_batch(mesh, {"input_ids": chosen, "input_mask": mask}, size)
            pooled = np.asarray(_pooled(config, params, batch, pooling))
            vectors[begin : begin + size] = pooled[: len(vectors) - begin]
            progress("pieces", min(begin + size, len(ids)), len(ids))
    return vectors


@partial(jax.jit, static_argnums=(0, 3))
def _pooled(config: ModelConfig, params: Params, batch: Batch, pooling: Pooling) -> Array:
    hidden_BxLxD = functional.encode(config, params, batch).hidden_BxLxD
    return pool_tokens(hidden_BxLxD, batch["input_mask"], pooling)
