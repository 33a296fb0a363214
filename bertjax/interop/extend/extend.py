"""Extension of a model's parameters: longer inputs, more entries, and given vectors for words.

Pure functions of (config, params, ...) that return a new (config, params); their arguments stay as
they are.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.model.functional import Params

PositionMethod = Literal["tile", "interpolate"]
EmbeddingMethod = Literal["mean", "pieces"]

MAX_POSITIONS = 1 << 20  # attention over this many needs terabytes
WORD_TABLE = ("embeddings", "word", "embedding")
POSITION_TABLE = ("embeddings", "position", "embedding")
MLM_BIAS = ("mlm", "bias")


def extend_positions(
    config: ModelConfig, params: Params, length: int, method: PositionMethod = "tile"
) -> tuple[ModelConfig, Params]:
    """Return the model with positions for up to `length` ids, made from the learned positions.

    `tile` repeats the learned positions in order, as Longformer does (arXiv 2004.05150, section 5).
    The outputs for inputs no longer than before stay the same to the bit. `interpolate` stretches
    the learned positions, as ViT does for images of higher resolution (arXiv 2010.11929, section
    3.2): the first and the last stay first and last, and every other one lies linearly between two
    learned neighbours. This changes the outputs for every input. The table's entries below
    `config.position_offset` are not positions and stay as they are. Raises `UserError` if `length`
    is not above `config.max_length`.
    """
    methods = get_args(PositionMethod)
    check(method in methods, where="positions", found=method, expected=" or ".join(methods))
    check(
        length <= MAX_POSITIONS,
        where="length",
        found=str(length)[:20],
        expected=f"at most {MAX_POSITIONS}",
    )
    old_length, offset = config.max_length, config.position_offset
    check(
        length > old_length,
        where="length",
        found=length,
        expected=f"more than {old_length}, which the model's positions allow already",
    )
    table_PxE = _leaf(params, POSITION_TABLE)
    learned_LxE = table_PxE[offset:]
    if method == "tile":
        positions = learned_LxE[np.arange(length) % old_length]
    else:
        positions = _interpolate(learned_LxE, length)
    extended = dataclasses.replace(config, max_position_embeddings=offset + length)
    table = np.concatenate([table_PxE[:offset], positions])
    return extended, _replace_leaf(params, POSITION_TABLE, table)


def _interpolate(learned_LxE: np.ndarray, length: int) -> np.ndarray:
    last = len(learned_LxE) - 1
    # Integers are exact: a new position that falls on a learned one then equals it to the bit.
    below, rest = np.divmod(np.arange(length) * last, length - 1)
    share = (rest / (length - 1)).astype(np.float32)[:, None]
    above = np.minimum(below + 1, last)
    return learned_LxE[below] * (1 - share) + learned_LxE[above] * share


def extend_vocabulary(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    pieces: Sequence[Sequence[int]],
    method: EmbeddingMethod = "pieces",
    *,
    multiple: int = 1,
) -> tuple[ModelConfig, Params]:
    """Return the model with new entries, whose ids follow those of the old `tokenizer`.

    `pieces` holds, for each new entry, the ids that `tokenizer` encodes it as. With the method
    `pieces`, the entry's embedding and its bias in the masked-word head are the means over these
    ids (arXiv 2402.09977). With `mean` they are the means over all n old entries that are not
    special. The logit of a new entry is then the mean of those n logits, so its probability is
    never above 1 / n (J. Hewitt, "Initializing New Word Embeddings for Pretrained Language Models",
    2021).

    New entries first take the unused entries at the table's end. If these are too few, the table
    grows to a multiple of `multiple`, and the entries that only fill it up get the mean. The
    tokenizer's old entries do not change. Raises `UserError` for a table with fewer entries than
    the tokenizer, and for a new entry without pieces or with a piece that is no id of `tokenizer`.
    """
    methods = get_args(EmbeddingMethod)
    check(method in methods, where="new rows", found=method, expected=" or ".join(methods))
    old_size = tokenizer.vocab_size
    check(multiple > 0, where="multiple", found=multiple, expected="a number above 0")
    check(
        old_size <= config.vocab_size,
        where="model.vocab_size",
        found=config.vocab_size,
        expected=f"at least the tokenizer's {old_size}",
    )
    for number, ids in enumerate(pieces, 1):
        check(
            len(ids) > 0 and min(ids) >= 0 and max(ids) < old_size,
            where=f"new entry {number}",
            found=f"the pieces {list(ids)}",
            expected=f"one or more, each from 0 to {old_size - 1}",
        )
    vocab_size = config.vocab_size
    used = old_size + len(pieces)
    if used > vocab_size:
        vocab_size = -(-used // multiple) * multiple  # rounded up
    ordinary = np.setdiff1d(np.arange(old_size), tokenizer.special_ids)

    def extend(old: np.ndarray) -> np.ndarray:
        # In float64: a float32 sum of 30,000 embeddings loses digits.
        mean = old[ordinary].mean(axis=0, dtype=np.float64)
        new = np.empty((vocab_size, *old.shape[1:]), np.float32)
        new[: len(old)] = old
        new[len(old) :] = mean
        for entry, ids in enumerate(pieces, old_size):
            if method == "mean":
                new[entry] = mean
            else:
                new[entry] = old[list(ids)].mean(axis=0, dtype=np.float64)
        return new

    params = _replace_leaf(params, WORD_TABLE, extend(_leaf(params, WORD_TABLE)))
    # The bias is the head's only parameter of its own with the vocabulary's size: its matrix is the
    # table of embeddings.
    if "mlm" in config.heads:
        params = _replace_leaf(params, MLM_BIAS, extend(_leaf(params, MLM_BIAS)))
    return dataclasses.replace(config, vocab_size=vocab_size), params


def init_word_vectors(
    config: ModelConfig, params: Params, words: Mapping[str, int], vectors: Mapping[str, np.ndarray]
) -> tuple[ModelConfig, Params, int]:
    """Return the model with `vectors` as embeddings of `words`, and the number of these embeddings.

    `words` are ids by word; words without a vector keep their embeddings. All vectors are
    multiplied by one number, so that their standard deviation becomes that of the present
    embeddings of `words`. In an untrained model that is 0.88 x `initializer_range`, because the
    normal distribution is cut at two deviations. Unscaled GloVe vectors have a much larger
    deviation and drown the position vectors that are added to them: models that start from them do
    worse than from random embeddings, and do better with a narrow range (arXiv 2407.12514). Scaling
    does not change the angles between vectors. Raises `UserError` if a vector is not
    `config.embedding_width` wide or not finite, if none of `words` has a vector, and if all vectors
    are 0.
    """
    known = [word for word in words if word in vectors]
    check(
        known, where="word vectors", found=f"none of {len(words):,} words", expected="one or more"
    )
    width = config.embedding_width
    width_field = "embedding_size" if config.embedding_size else "hidden_size"
    for word in known:
        shape = np.shape(vectors[word])
        check(
            shape == (width,),
            where=f"the vector of {word!r}",
            found=f"shape {list(shape)}",
            expected=f"[{width}], as model.{width_field} says",
        )
    vectors_KxE = np.stack([vectors[word] for word in known]).astype(np.float64)
    deviation = vectors_KxE.std()
    check(
        np.isfinite(deviation) and deviation > 0,
        where="word vectors",
        found=f"a deviation of {deviation}",
        expected="a number above 0",
    )
    # A copy: numpy's view of a JAX array is read-only, and `params` must stay as they are.
    table_VxE = _leaf(params, WORD_TABLE).copy()
    scale = table_VxE[list(words.values())].std(dtype=np.float64) / deviation
    table_VxE[[words[word] for word in known]] = vectors_KxE * scale
    return config, _replace_leaf(params, WORD_TABLE, table_VxE), len(known)


def _leaf(params: Params, path: Sequence[str]) -> np.ndarray:
    tree: Any = params
    for key in path:
        tree = tree[key]
    return np.asarray(tree)


def _replace_leaf(tree: Params, path: Sequence[str], leaf: np.ndarray) -> dict[str, Any]:
    """Return `tree` with another leaf at `path`; the two trees share all other leaves."""
    first, *rest = path
    if not rest:
        return {**tree, first: jnp.asarray(leaf)}
    return {**tree, first: _replace_leaf(tree[first], rest, leaf)}
