"""Masked bits per byte: how well a model predicts masked words, compared over tokenizers."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import Array

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.inference.given_texts import each_text
from bertjax.inference.lengths import longest_row, padded_length, row_memory_errors
from bertjax.inference.masked_rows import MaskedRow, MaskedText, masked_text
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.parallel.announce import announce_once
from bertjax.progress import Progress, silent
from bertjax.training.saved_model import TrainedModel, opened_model
from bertjax.types import Batch

# XLA's rounding depends on shapes, and a text's figure must not depend on other texts. So rows of
# one text alone are computed together, padded to one of these numbers.
ROWS = (1, 4, 16)
"""Numbers of rows that are computed together."""
PREDICTIONS = 32
"""Masked pieces of a row whose logits are computed together."""

BITS_OF_A_BYTE = 8


@dataclass(frozen=True)
class MaskedBits:
    """Sums over the masked words of texts."""

    nats: float = 0.0
    """Cross-entropy of the masked pieces, in nats."""
    bytes: int = 0
    """Bytes in UTF-8 that they stand for, white space left out."""
    unspelled_bytes: int = 0
    """Those of them that are in unknown pieces or in none; each costs 8 bits more."""
    words: int = 0
    """Number of masked words."""
    pieces: int = 0
    """Number of masked pieces."""
    texts: int = 0
    """Number of texts."""

    def __add__(self, other: "MaskedBits") -> "MaskedBits":
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in dataclasses.fields(self)
        }
        return MaskedBits(**sums)

    @property
    def bits(self) -> float:
        """Bits that the masked words cost: `nats` / ln 2 + 8 x `unspelled_bytes`."""
        return self.nats / math.log(2) + BITS_OF_A_BYTE * self.unspelled_bytes

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of the masked words; NaN if there is none."""
        return self.bits / self.bytes if self.bytes else math.nan


def masked_bits(
    model: TrainedModel | epath.PathLike,
    texts: Iterable[str],
    *,
    max_seq_length: int | None = None,
    progress: Progress = silent,
) -> list[MaskedBits]:
    """Return the bits of the masked words of each text; `sum(..., MaskedBits())` is that of all.

    Of each text 15 % of the words are masked, all pieces of a word together, by `[MASK]` alone.
    They are drawn by a hash of the text, so they are the same for every tokenizer
    (`held_out_words`). The figure is

        (sum over masked pieces of -log p(piece) / ln 2 + 8 x unspelled bytes) / bytes

    where the bytes are those in UTF-8 that the masked pieces stand for, without white space.
    An unknown piece stands for any text, so its probability says little: its bytes cost 8 bits
    each beside its loss, and so do bytes that are in no piece. A text is cut into rows of
    `max_seq_length` ids (default: 512, or as many as the model has positions); each is predicted
    by itself, in float32, so the figure of a text does not depend on other texts.

    A model whose rows were all causal (`data.causal_share` 1) sees of the same words all that
    stands before each piece, and nothing behind it; nothing is masked.

    `model` is a model that `load_model` or `load_network` returned, or a run or checkpoint folder.
    Raises `UserError` for a model without a head for masked words, and for anything but texts.

    >>> import bertjax
    >>> (bits,) = bertjax.masked_bits("runs/tiny", ["the dog sees the good cat."])
    >>> bits.words, bits.bits_per_byte > 0
    (1, True)
    """
    return list(masked_bits_of_each(model, texts, max_seq_length, progress))


def masked_bits_of_each(
    model: TrainedModel | epath.PathLike,
    texts: Iterable[str],
    max_seq_length: int | None = None,
    progress: Progress = silent,
) -> Iterator[MaskedBits]:
    """Yield what `masked_bits` returns, text by text."""
    opened = opened_model(model)
    config = _checked(opened)
    longest = longest_row(config, max_seq_length)
    least = opened.tokenizer.layout.single_specials + 1
    check(
        longest >= least,
        where="max_seq_length",
        found=longest,
        expected=f"{least} or more, for one piece beside the special tokens",
    )
    compute = _Computer(opened, config, longest)
    for done, text in enumerate(each_text(texts, "texts"), 1):
        masked = masked_text(opened.tokenizer, text, longest)
        with row_memory_errors(ROWS[-1]):
            nats = compute.nats(masked)
        progress("masked words", done, 0)
        yield MaskedBits(nats, masked.bytes, masked.unspelled_bytes, masked.words, masked.pieces, 1)


def is_causal(model: TrainedModel) -> bool:
    """Return whether all rows of the model's training were causal at its checkpoint."""
    return model.config.data.causal_share == 1


def _checked(model: TrainedModel) -> ModelConfig:
    """Return the model's configuration in float32; `UserError` if it predicts no words."""
    config = model.config.model
    check(
        "mlm" in config.heads,
        where=f"{model.checkpoint}: model.heads",
        found=", ".join(config.heads) or "none",
        expected="mlm: without this head a model predicts no words"
        + (" (the generator does: --network generator)" if "rtd" in config.heads else ""),
    )
    return dataclasses.replace(config, dtype="float32", kernels="xla")


class _Computer:
    """The losses of texts, a text at a time."""

    def __init__(self, model: TrainedModel, config: ModelConfig, longest: int) -> None:
        self._config, self._longest = config, longest
        self._params = model.params
        self._mask_id = model.tokenizer.mask_id
        self._is_causal = is_causal(model)

    def nats(self, text: MaskedText) -> float:
        """Return the summed cross-entropy of a text's masked pieces, in nats."""
        announce_once("the masked words of texts")
        by_length: dict[int, list[MaskedRow]] = {}
        for row in text.rows:
            if len(row.positions):
                length = padded_length(len(row.ids), self._longest)
                by_length.setdefault(length, []).append(row)
        losses = [0.0]
        for length, rows in by_length.items():
            for begin in range(0, len(rows), ROWS[-1]):
                losses += self._losses(rows[begin : begin + ROWS[-1]], length)
        # Exact, so the order of the rows does not matter.
        return math.fsum(losses)

    def _losses(self, rows: list[MaskedRow], length: int) -> list[float]:
        """Return the loss of each masked piece of a few rows."""
        count = next(count for count in ROWS if count >= len(rows))
        ids = np.zeros((count, length), np.int32)
        mask = np.zeros((count, length), np.int32)
        most = max(len(row.positions) for row in rows)
        room = -(-most // PREDICTIONS) * PREDICTIONS
        positions = np.zeros((count, room), np.int32)
        is_real = np.zeros((count, room), bool)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = row.ids
            mask[number, : len(row.ids)] = 1
            positions[number, : len(row.positions)] = row.positions
            is_real[number, : len(row.positions)] = True
        labels = np.take_along_axis(ids, positions, axis=1)
        batch: dict[str, np.ndarray] = {"input_ids": ids, "input_mask": mask}
        if self._is_causal:
            batch["causal"] = np.ones((count, 1), np.int32)
        else:
            for number, row in enumerate(rows):
                ids[number, row.positions] = self._mask_id
        # Such a model reads the state before a position by itself.
        shift = 1 if self._is_causal and not self._config.mlm_shifted else 0
        hidden = _hidden(self._config, self._params, batch)
        parts = []
        for begin in range(0, room, PREDICTIONS):
            part = slice(begin, begin + PREDICTIONS)
            places = np.maximum(positions[:, part] - shift, 0)
            parts.append(
                _cross_entropy(self._config, self._params, hidden, places, labels[:, part])
            )
        values = np.concatenate(jax.device_get(parts), axis=1)
        return values[is_real].astype(np.float64).tolist()


@partial(jax.jit, static_argnums=0)
def _hidden(config: ModelConfig, params: Params, batch: Batch) -> Array:
    return functional.encode(config, params, batch).hidden_BxLxD


@partial(jax.jit, static_argnums=0)
def _cross_entropy(
    config: ModelConfig,
    params: Params,
    hidden_BxLxD: Array,
    positions_BxP: Array,
    labels_BxP: Array,
) -> Array:
    """Return -log p of each label, in nats; float32 [B, P]."""
    logits_BxPxV = functional.mlm_logits(config, params, hidden_BxLxD, positions_BxP)
    own_BxP = jnp.take_along_axis(logits_BxPxV, labels_BxP[:, :, None], axis=-1)[:, :, 0]
    return jax.nn.logsumexp(logits_BxPxV, axis=-1) - own_BxP
