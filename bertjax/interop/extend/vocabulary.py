"""Extension of a model's vocabulary: more entries, and given vectors for words.

Pure functions of (config, params, ...) that return a new (config, params); their arguments stay as
they are.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, excerpt
from bertjax.interop.extend.leaves import leaf_of, replace_leaf
from bertjax.model.functional import Params

EmbeddingMethod = Literal["mean", "pieces"]

WORD_TABLE = ("embeddings", "word", "embedding")
# What a masked-word head of its own has one row of for each entry of the vocabulary: its bias, and
# its table where that is not the one of the embeddings.
OF_HEAD = ("bias", "decoder")


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
    `pieces`, the entry's embedding and its rows in the masked-word head (of the bias, and of the
    table where that is not the embeddings') are the means over these ids (arXiv 2402.09977). With
    `mean` they are the means over all n old entries that are not special. The logit of a new entry
    is then the mean of those n logits, so its probability is never above 1 / n (J. Hewitt,
    "Initializing New Word Embeddings for Pretrained Language Models", 2021).

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

    params = replace_leaf(params, WORD_TABLE, extend(leaf_of(params, WORD_TABLE)))
    for name in OF_HEAD:
        if name in params.get("mlm", {}):
            params = replace_leaf(params, ("mlm", name), extend(leaf_of(params, ("mlm", name))))
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
            where=f"the vector of {excerpt(word)}",
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
    table_VxE = leaf_of(params, WORD_TABLE).copy()
    scale = table_VxE[list(words.values())].std(dtype=np.float64) / deviation
    table_VxE[[words[word] for word in known]] = vectors_KxE * scale
    return config, replace_leaf(params, WORD_TABLE, table_VxE), len(known)
