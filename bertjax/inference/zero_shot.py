"""Classification without training: labels as words of a template, scored by pretraining's heads."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import Array
from jax.sharding import Mesh

from bertjax.config import MeshConfig, ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.inference.given_texts import each_text
from bertjax.inference.lengths import check_rows_fit, longest_row, padded_length, row_memory_errors
from bertjax.inference.prompts import TEXT, Method, Prompt, make_prompts
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.parallel.announce import announce_once
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import batch_parts, replicated
from bertjax.training.saved_model import TrainedModel, opened_model
from bertjax.types import Batch

TEMPLATE = "{} This text is about [MASK]."


class ZeroShot(NamedTuple):
    """The scores of some texts, from `zero_shot`."""

    scores: np.ndarray
    """float32 [texts, labels], in nats; only the differences within a text have a meaning."""
    probabilities: np.ndarray
    """float32 [texts, labels], the softmax of a text's scores."""
    truncated: int
    """Texts that were cut."""


class _CutTexts(NamedTuple):
    """The ids of the texts, each cut so that it fits into a row with the longest prompt."""

    texts: list[np.ndarray]
    truncated: int
    """The number of texts that were cut."""


class _PromptedText(NamedTuple):
    """A text in a prompt: one row of a batch."""

    ids: np.ndarray
    second_begin: int
    """Position where token type 1 begins."""
    masks: np.ndarray
    """Positions of the masks, int32 [K]."""


def zero_shot(
    model: TrainedModel | epath.PathLike,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    template: str = TEMPLATE,
    method: Method = "mask",
    calibrate: bool = False,
    batch_size: int = 64,
    max_seq_length: int | None = None,
) -> ZeroShot:
    """Score how well each label fits each text, by a model that was pretrained and no more.

    `model` is a model that `load_model` returned, or a run or checkpoint folder. `template` has {}
    where the text goes and [MASK] where the label goes.

    `mask`: the row is that of the template. A label of K pieces is scored with K masks in its
    place, and all K pieces are predicted from the one row. The score is the mean of
    log P(piece | row) over the pieces; a sum would favor short labels. P is the softmax over the
    tokenizer's vocabulary without special tokens. Labels with the same number of pieces are scored
    from the same row.

    `next-sentence` (arXiv 2109.03564): one sentence is the text, the other is the template without
    {} and with the label in place of [MASK]. A template that begins with {} is sentence B, one that
    ends with {} is sentence A. The score is log P(B follows A).

    With `calibrate` the label's score with an empty text is subtracted, so that a label is not
    preferred for being a frequent word. This is the pointwise mutual information of arXiv
    2104.08315; the template without a text is what that paper calls the domain premise.

    A text is cut at its end if it does not fit into `max_seq_length` ids with the longest label; it
    is cut alike for all labels, and the template is never cut. By default `max_seq_length` is 512,
    or less if the model has fewer positions. Rows are sorted by length, padded, and divided among
    all local devices; `batch_size` is rounded up to a multiple of their number.

    Raises `UserError` if `texts` or `labels` is one string, for fewer than two labels, the same
    label twice, a label that is empty or that the vocabulary cannot spell, a template without {} or
    [MASK], no room for the text, an option out of range, and a model without the head.

    >>> import bertjax
    >>> labels = ["dog", "bird"]
    >>> scored = bertjax.zero_shot("runs/tiny", ["the cat sees."], labels, template="{} [MASK]")
    >>> scored.probabilities.shape, float(scored.probabilities.sum().round(3))
    ((1, 2), 1.0)
    """
    texts, labels = list(each_text(texts, "texts")), list(each_text(labels, "labels"))
    model = opened_model(model)
    config, tokenizer = model.config.model, model.tokenizer
    _check_options(config, tokenizer, method, batch_size)
    prompts = make_prompts(tokenizer, template, labels, method)
    # Some tokenizers encode the space before a word with the word, to mark its beginning. So the
    # template's space before {} is encoded with the text.
    before = template.partition(TEXT)[0]
    # For next-sentence the text is a sentence of its own, with nothing before it.
    space = before.removeprefix(before.rstrip()) if method == "mask" else ""
    prompted = [*texts, ""] if calibrate else list(texts)
    longest = longest_row(config, max_seq_length)
    cut = _cut_texts(tokenizer, [space + text for text in prompted], prompts, longest)

    announce_once("the scores of labels")
    scores = np.zeros((len(prompted), len(labels)), np.float32)
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    params = jax.device_put(model.inference_params, replicated(mesh))
    for group in _by_number_of_masks(prompts):
        # The first prompt with each text, then the next prompt with each text.
        prompted_texts = [
            _prompted(tokenizer, prompt, text) for prompt in group for text in cut.texts
        ]
        # With `mask` a group is one prompt; with `next-sentence` no prompt has pieces.
        pieces = group[0].pieces
        with row_memory_errors(batch_size):
            scored = _scored(
                config, params, tokenizer, mesh, prompted_texts, pieces, batch_size, longest
            )
        for prompt, prompt_scores in zip(group, np.split(scored, len(group)), strict=True):
            scores[:, prompt.labels] = prompt_scores
    if calibrate:
        of_texts, of_empty_text = scores[:-1], scores[-1:]
        scores = of_texts - of_empty_text
    # Less the largest: calibrated scores may be above 0, and exp must not overflow.
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return ZeroShot(scores, probabilities, cut.truncated)


def _check_options(
    config: ModelConfig, tokenizer: Tokenizer, method: Method, batch_size: int
) -> None:
    methods = get_args(Method)
    check(
        method in methods,
        where="method",
        found=repr(method),
        expected=f"one of {', '.join(methods)}",
    )
    check(batch_size > 0, where="batch_size", found=batch_size, expected="a number above 0")
    check_rows_fit(config, batch_size)
    check(
        # JAX raises nothing for an id outside of the table of embeddings.
        tokenizer.vocab_size <= config.vocab_size,
        where="tokenizer",
        found=f"{tokenizer.vocab_size} entries",
        expected=f"at most {config.vocab_size}, the model's",
    )
    check(
        method == "mask" or config.type_vocab_size > 1,
        where="model.type_vocab_size",
        found=config.type_vocab_size,
        expected="2 or more, to tell two sentences apart",
    )


def _cut_texts(
    tokenizer: Tokenizer, texts: Sequence[str], prompts: Sequence[Prompt], longest: int
) -> _CutTexts:
    """Encode the texts, each cut so that it fits with the longest prompt into `longest` ids."""
    ids, begins = tokenizer.encode_batch(texts)
    prompt_length = max(len(prompt.before) + len(prompt.after) for prompt in prompts)
    check(
        prompt_length < longest,
        where="template",
        found=f"{prompt_length} ids without the text",
        expected=f"fewer than {longest} (max_seq_length)",
    )
    lengths = np.minimum(np.diff(begins), longest - prompt_length)
    cut = [ids[begin : begin + length] for begin, length in zip(begins[:-1], lengths, strict=True)]
    return _CutTexts(cut, int(np.sum(lengths < np.diff(begins))))


def _by_number_of_masks(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    """Group the prompts by their number of masks, ascending: one program serves each group."""
    groups: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        masks = prompt.pieces.shape[1]
        groups.setdefault(masks, []).append(prompt)
    return [groups[masks] for masks in sorted(groups)]


def _prompted(tokenizer: Tokenizer, prompt: Prompt, text: np.ndarray) -> _PromptedText:
    ids = np.concatenate([prompt.before, text, prompt.after])
    # All are the template's: a text that spells [MASK] gives no mask (`encode_batch`).
    masks = np.flatnonzero(ids == tokenizer.mask_id).astype(np.int32)
    # Token type 0 has the prompt's own ids of that type, and the text if it is of that type.
    second_begin = prompt.first + (len(text) if prompt.text_first else 0)
    return _PromptedText(ids, second_begin, masks)


def _scored(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    mesh: Mesh,
    prompted_texts: Sequence[_PromptedText],
    pieces: np.ndarray,
    batch_size: int,
    longest: int,
) -> np.ndarray:
    """Return the scores of texts whose prompts have the same number of masks, float32 [texts, C].

    They are computed a batch at a time, the longest first.
    """
    devices = batch_parts(mesh)
    batch_size = math.ceil(batch_size / devices) * devices
    # The table of embeddings may have more entries than the tokenizer, and a special token is no
    # word of a label.
    allowed_V = np.arange(config.vocab_size) < tokenizer.vocab_size
    allowed_V[tokenizer.special_ids] = False
    order = np.argsort([-len(text.ids) for text in prompted_texts], kind="stable")
    scores = np.zeros((len(prompted_texts), len(pieces)), np.float32)
    for begin in range(0, len(prompted_texts), batch_size):
        chosen = order[begin : begin + batch_size]
        batch_rows = [prompted_texts[i] for i in chosen]
        # A program is compiled for each shape, so a short batch is filled up with its first row.
        missing = batch_size - len(batch_rows)
        batch_rows += [batch_rows[0]] * missing
        batch = _batch(batch_rows, tokenizer.pad_id, longest)
        outputs = _row_scores(
            config, params, global_batch(mesh, batch, batch_size), allowed_V, pieces
        )
        scores[chosen] = np.asarray(outputs)[: len(chosen)]
    return scores


def _batch(rows: Sequence[_PromptedText], pad_id: int, longest: int) -> dict[str, np.ndarray]:
    """Return the padded batch of `rows`, of which the first must be the longest."""
    shape = len(rows), padded_length(len(rows[0].ids), longest)
    ids = np.full(shape, pad_id, np.int32)
    mask = np.zeros(shape, np.int32)
    segments = np.zeros(shape, np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        mask[i, : len(row.ids)] = 1
        segments[i, row.second_begin : len(row.ids)] = 1
    masks = np.stack([row.masks for row in rows])
    return {"input_ids": ids, "input_mask": mask, "segment_ids": segments, "mask_positions": masks}


@partial(jax.jit, static_argnums=0)
def _row_scores(
    config: ModelConfig, params: Params, batch: Batch, allowed_V: Array, pieces_CxK: Array
) -> Array:
    """Return the scores of each row, float32 [B, C].

    With masks they are the mean log-probability of each label's pieces at the masks; without masks
    the log-probability that B follows A, [B, 1].
    """
    hidden = functional.encode(config, params, batch).hidden_BxLxD
    masks = pieces_CxK.shape[1]
    if masks == 0:  # the method is next-sentence
        pooled = functional.pool(config, params, hidden, input_mask=batch["input_mask"])
        log_probs_Bx2 = jax.nn.log_softmax(functional.nsp_logits(config, params, pooled))
        # The numbers of the classes are those of run_pretraining.py of the original BERT.
        return log_probs_Bx2[:, :1]  # class 0: B follows A
    logits_BxKxV = functional.mlm_logits(config, params, hidden, batch["mask_positions"])
    # Before the softmax: the probabilities of all pieces that can be proposed must add up to 1.
    log_probs_BxKxV = jax.nn.log_softmax(
        jnp.where(allowed_V[None, None, :], logits_BxKxV, -jnp.inf)
    )
    # Piece k of each label is read at mask k.
    mask_index_CxK = jnp.broadcast_to(jnp.arange(masks)[None, :], pieces_CxK.shape)
    log_probs_BxCxK = log_probs_BxKxV[:, mask_index_CxK, pieces_CxK]
    return jnp.mean(log_probs_BxCxK, axis=-1)
