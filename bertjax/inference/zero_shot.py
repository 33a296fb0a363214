"""Classification without training: labels as words in a template, judged by the heads that
pretraining left.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from bertjax.config import MeshConfig, ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.inference.embed import longest, padded_length
from bertjax.inference.prompts import TEXT, Method, Prompt, make_prompts
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import batch_parts, replicated
from bertjax.types import Batch

TEMPLATE = "{} This text is about [MASK]."


class ZeroShot(NamedTuple):
    """What `zero_shot` finds of some texts."""

    scores: np.ndarray
    """float32 [texts, labels], in nats; only their differences within a text say anything."""
    probabilities: np.ndarray
    """float32 [texts, labels], the softmax of a text's scores."""
    truncated: int
    """How many texts were cut."""


def zero_shot(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    template: str = TEMPLATE,
    method: Method = "mask",
    calibrate: bool = False,
    batch_size: int = 64,
    max_seq_length: int | None = None,
) -> ZeroShot:
    """How well each of `labels` fits each of `texts`, by a model that was pretrained and no more.

    `template` has {} where the text goes and [MASK] where the label goes.

    `mask`: a label of K pieces is K masks in one row, [CLS] template [SEP], and its score the mean
    over its pieces of log P(piece | row), all K read from the one row; the mean, that long labels
    are not worse for their length. The probabilities are among the pieces that can be proposed,
    without special tokens. Labels with the same K share rows.

    `next-sentence` (arXiv 2109.03564): the text is one sentence, the template without {} and with
    the label for [MASK] the other: sentence B where {} begins the template, sentence A where it
    ends it. The score is log P(B follows A).

    With `calibrate` the score of the label with an empty text is taken off, so that a label is not
    preferred for being a frequent word: the pointwise mutual information of arXiv 2104.08315, with
    the template as its premise.

    Texts that with the longest label make more than `max_seq_length` ids (default: 512, or the
    model's positions) are cut at their end, for all labels alike; the template never is. Rows are
    sorted by length, padded, and shared by all local devices, a multiple of which `batch_size` is
    rounded up to.

    Raises `UserError` for fewer than two labels, the same label twice, one that is empty or that
    the vocabulary has not, a template without {} or [MASK], no room for the text, an option out of
    range, and a model without the head.
    """
    check(
        method in get_args(Method),
        where="method",
        found=repr(method),
        expected=f"one of {', '.join(get_args(Method))}",
    )
    check(batch_size > 0, where="batch_size", found=batch_size, expected="a number above 0")
    entries = f"{tokenizer.vocab_size} entries"
    check(
        tokenizer.vocab_size <= config.vocab_size,
        where="tokenizer",
        found=entries,
        expected=f"at most {config.vocab_size}, the model's",
    )
    kinds = config.type_vocab_size
    check(
        method == "mask" or kinds > 1,
        where="model.type_vocab_size",
        found=kinds,
        expected="2 or more, to tell two sentences apart",
    )
    prompts = make_prompts(tokenizer, template, labels, method)
    # For tokenizers that tell a word's beginning by the space before it, a space of the template is
    # the text's.
    head = template.partition(TEXT)[0]
    space = head[len(head.rstrip()) :] if method == "mask" else ""
    ids, begins = tokenizer.encode_batch(
        [space + text for text in ([*texts, ""] if calibrate else texts)]
    )
    length = longest(config, max_seq_length)
    room = length - max(len(prompt.before) + len(prompt.after) for prompt in prompts)
    check(
        room > 0,
        where="template",
        found=f"{length - room} ids without the text",
        expected=f"fewer than {length} (max_seq_length)",
    )
    lengths = np.minimum(np.diff(begins), room)
    cut = [ids[begin : begin + n] for begin, n in zip(begins, lengths, strict=False)]
    scores = np.zeros((len(cut), len(labels)), np.float32)
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    params = jax.device_put(params, replicated(mesh))
    for same in _with_as_many_masks(prompts):
        rows = [_row(tokenizer, prompt, text) for prompt in same for text in cut]
        found = _scored(config, params, tokenizer, mesh, rows, same[0].pieces, batch_size, length)
        for prompt, part in zip(same, np.split(found, len(same)), strict=True):
            scores[:, prompt.labels] = part
    if calibrate:
        scores = scores[:-1] - scores[-1:]
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    truncated = int(np.sum(lengths < np.diff(begins)))
    return ZeroShot(scores, exponentials / exponentials.sum(axis=1, keepdims=True), truncated)


def _with_as_many_masks(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    counts = sorted({prompt.pieces.shape[1] for prompt in prompts})
    return [[prompt for prompt in prompts if prompt.pieces.shape[1] == masks] for masks in counts]


class _Row(NamedTuple):
    ids: np.ndarray
    second: int
    """Where token type 1 begins."""
    masks: np.ndarray
    """The places of the masks, int32 [K]."""


def _row(tokenizer: Tokenizer, prompt: Prompt, text: np.ndarray) -> _Row:
    ids = np.concatenate([prompt.before, text, prompt.after])
    (masks,) = np.nonzero(ids == tokenizer.mask_id)
    return _Row(ids, prompt.first + (len(text) if prompt.text_first else 0), masks.astype(np.int32))


def _scored(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    mesh: Mesh,
    rows: Sequence[_Row],
    pieces: np.ndarray,
    batch_size: int,
    longest: int,
) -> np.ndarray:
    """The scores of rows with the same number of masks, [rows, C] float32; a batch at a time, the
    longest first.
    """
    parts = batch_parts(mesh)
    batch_size = -(-batch_size // parts) * parts
    allowed = np.arange(config.vocab_size) < tokenizer.vocab_size
    allowed[tokenizer.special_ids] = False
    order = np.argsort([-len(row.ids) for row in rows], kind="stable")
    scores = np.zeros((len(rows), len(pieces)), np.float32)
    for begin in range(0, len(rows), batch_size):
        chosen = order[begin : begin + batch_size]
        some = [rows[i] for i in chosen]
        # Full batches always: a program is compiled for each shape.
        batch = _batch([*some, *some[:1] * (batch_size - len(some))], tokenizer.pad_id, longest)
        found = _row_scores(config, params, global_batch(mesh, batch, batch_size), allowed, pieces)
        scores[chosen] = np.asarray(found)[: len(chosen)]
    return scores


def _batch(rows: Sequence[_Row], pad_id: int, longest: int) -> dict[str, np.ndarray]:
    shape = len(rows), padded_length(len(rows[0].ids), longest)
    ids, mask, segments = (
        np.full(shape, pad_id, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
    )
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        mask[i, : len(row.ids)] = 1
        segments[i, row.second : len(row.ids)] = 1
    masks = np.stack([row.masks for row in rows])
    return {"input_ids": ids, "input_mask": mask, "segment_ids": segments, "mask_positions": masks}


@partial(jax.jit, static_argnums=0)
def _row_scores(
    config: ModelConfig, params: Params, batch: Batch, allowed_V: Array, pieces_CxK: Array
) -> Array:
    """[B, C] float32: mean log-probability of the pieces at the masks; without masks, of B
    following A, [B, 1].
    """
    hidden = functional.encode(config, params, batch).hidden_BxLxD
    if pieces_CxK.shape[1] == 0:
        return jax.nn.log_softmax(
            functional.nsp_logits(config, params, functional.pool(config, params, hidden))
        )[:, :1]
    logits_BxKxV = functional.mlm_logits(config, params, hidden, batch["mask_positions"])
    log_probs_BxKxV = jax.nn.log_softmax(
        jnp.where(allowed_V[None, None, :], logits_BxKxV, -jnp.inf)
    )
    places_CxK = jnp.broadcast_to(jnp.arange(pieces_CxK.shape[1])[None, :], pieces_CxK.shape)
    return jnp.mean(log_probs_BxKxV[:, places_CxK, pieces_CxK], axis=-1)
