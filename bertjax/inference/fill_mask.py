"""Fill in masked words with a pretrained model."""

from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from bertjax.errors import check, excerpt
from bertjax.inference.given_texts import check_text
from bertjax.model import functional
from bertjax.parallel.announce import announce_once
from bertjax.training.saved_model import TrainedModel, opened_model


class Candidate(NamedTuple):
    """One piece of the vocabulary that may stand at a mask."""

    text: str
    probability: float


def fill_mask(
    model: TrainedModel | epath.PathLike, text: str, *, top_k: int = 5
) -> list[list[Candidate]]:
    """Return the `top_k` most probable pieces for each `[MASK]` of `text`, the best first.

    `model` is a model that `load_model` returned, or a run or checkpoint folder. Probabilities
    are the softmax over the tokenizer's vocabulary without its special tokens, which are never
    among the pieces: there may be fewer than `top_k`.

    Raises `UserError` if `text` is no string, has no mask or has more ids than the model has
    positions, or if the model has no masked-word head.

    >>> import bertjax
    >>> (candidates,) = bertjax.fill_mask("runs/tiny", "the [MASK] sees the dog.", top_k=3)
    >>> len(candidates), 0 < candidates[0].probability < 1
    (3, True)
    """
    check_text(text, "text")
    check(top_k > 0, where="top_k", found=top_k, expected="a number above 0")
    model = opened_model(model)
    config, tokenizer = model.config.model, model.tokenizer
    ids = tokenizer.layout.row(tokenizer.encode_with_masks(text))
    masks = np.flatnonzero(ids == tokenizer.mask_id).astype(np.int32)
    check(len(masks) > 0, where=excerpt(text), found="no [MASK]", expected="one or more")
    # JAX raises nothing for a position outside of the table of embeddings.
    limit = config.max_length
    check(
        len(ids) <= limit,
        where=excerpt(text),
        found=f"{len(ids)} ids",
        expected=f"at most {limit} (model.max_position_embeddings)",
    )

    announce_once("the words for masks")
    params, batch = model.inference_params, {"input_ids": ids[None]}
    hidden_1xLxD = functional.encode(config, params, batch).hidden_BxLxD
    # At the masks only: the logits of all positions would be L rows of V numbers.
    logits_1xMxV = functional.mlm_logits(config, params, hidden_1xLxD, masks[None])
    # A copy: NumPy's view of a JAX array cannot be written to.
    logits_MxV = np.array(logits_1xMxV[0])
    # The table of embeddings may have more rows than the tokenizer has entries.
    logits_MxV[:, tokenizer.vocab_size :] = -np.inf
    logits_MxV[:, tokenizer.special_ids] = -np.inf
    probabilities_MxV = np.asarray(jax.nn.softmax(logits_MxV, axis=-1))
    # No more than there are: special tokens come last, with the probability 0.
    specials = len(set(tokenizer.special_ids))
    kept = min(top_k, tokenizer.vocab_size - specials)
    best_MxK = np.argsort(-probabilities_MxV, axis=-1)[:, :kept]

    filled = []
    for probabilities, best in zip(probabilities_MxV, best_MxK, strict=True):
        candidates = [Candidate(tokenizer.decode([i]), float(probabilities[i])) for i in best]
        filled.append(candidates)
    return filled
