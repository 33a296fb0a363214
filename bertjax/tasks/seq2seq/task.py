"""Sequence to sequence as a task: rows of pairs, the loss of a target given its source, texts, and
their BLEU.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.data.ragged import ranges
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check
from bertjax.model import functional
from bertjax.model.functional import DECODER_GROUPS, Params
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.tasks.examples import PairExample
from bertjax.tasks.linear_head import head_of
from bertjax.tasks.seq2seq import decode, decoder
from bertjax.tasks.task import Rows
from bertjax.types import Batch

DECODER = 2  # folded into the step's key; the encoder has the key itself

log = logging.getLogger("bertjax")


@dataclass(frozen=True)
class PairRows(Rows):
    """Sources as rows; `targets` has their `target_ids` [items, T] int32, padded, where they are
    wanted.
    """

    tokenizer: Tokenizer = field(kw_only=True)
    """What made the rows, and makes texts of the ids that are predicted for them."""


@dataclass(frozen=True)
class Seq2Seq:
    """Targets from sources: a `Task` whose predictions come from `generate`.

    A batch holds `target_ids` [B, T] int32 beside the sources: `cls_id`, the target, `sep_id`,
    `pad_id`s.
    """

    name: str
    search: decode.Search
    """The ids that matter, T, and how targets are searched for."""
    label_smoothing: float = 0.0
    """Share of the probability that the loss spreads over the vocabulary (arXiv 1512.00567)."""
    lowercase: bool = False
    """BLEU pays no heed to case, for a tokenizer that cannot give any."""

    def __post_init__(self) -> None:
        search, where = self.search, f"task {self.name}"
        check(
            0 <= self.label_smoothing < 1,
            where=f"{where}: label_smoothing",
            found=self.label_smoothing,
            expected="0 to below 1",
        )
        check(
            search.max_target_length >= 3,
            where=f"{where}: max_target_length",
            found=search.max_target_length,
            expected="3 or more",
        )
        check(
            search.beam_size >= 1,
            where=f"{where}: beam_size",
            found=search.beam_size,
            expected="1 or more",
        )
        check(
            search.length_penalty >= 0,
            where=f"{where}: length_penalty",
            found=search.length_penalty,
            expected="0 or more",
        )

    @property
    def metric(self) -> str:
        return "bleu"

    @property
    def per_token(self) -> bool:
        return False

    @property
    def percent(self) -> bool:
        return True

    @property
    def generates(self) -> bool:
        """True: predictions are made of `generate`'s ids, not of `outputs`."""
        return True

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """A new decoder; `decoder.warm_start` puts a checkpoint in it. `UserError` where T is over
        its positions.
        """
        length, longest = self.search.max_target_length, config.max_length
        check(
            length <= longest,
            where=f"task {self.name}: max_target_length",
            found=length,
            expected=f"at most the model's {longest}",
        )
        return decoder.init(config, key)

    def begin(self, config: ModelConfig, new: Params, restored: Params) -> Params:
        """The decoder from the model that is to be its beginning, or else from the encoder's;
        cross-attention new.
        """
        donor = restored.get(DECODER_GROUPS, restored)
        return (
            decoder.warm_start(config, new, donor)
            if "embeddings" in donor and "encoder" in donor
            else new
        )

    def head_axes(self, config: ModelConfig) -> Params:
        """The tree of the head with a PartitionSpec of logical axis names in each leaf's place."""
        return decoder.logical_axes(config)

    def scores(
        self,
        config: ModelConfig,
        params: Params,
        batch: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """[B, T, V] float32: scores of the id after each of `target_ids`, of which each knows those
        before it.
        """
        memory = functional.encode(config, params, batch, key=key, layout=layout).hidden_BxLxD
        own = None if key is None else jax.random.fold_in(key, DECODER)
        head, mask = head_of(params, self.name), jnp.asarray(batch["input_mask"])
        return decoder.logits(
            config, head, memory, mask, self._target_ids(batch), key=own, layout=layout
        )

    def count(self, batch: Batch) -> Array:
        """Ids to be learnt: those of the targets, `sep_id` included."""
        return jnp.sum(self._labels(batch)[1])

    def sums(self, scores: Array, batch: Batch) -> dict[str, Array]:
        """`loss` in nats (smoothed), `correct` ids (likeliest, given the true ones before) and
        `count`.
        """
        labels_BxT, weights_BxT = self._labels(batch)
        picked = jnp.take_along_axis(scores, labels_BxT[:, :, None], axis=-1)[:, :, 0]
        wanted = (1 - self.label_smoothing) * picked
        if self.label_smoothing:
            wanted += self.label_smoothing * jnp.mean(scores, axis=-1)
        losses = jax.nn.logsumexp(scores, axis=-1) - wanted
        correct = (jnp.argmax(scores, axis=-1) == labels_BxT) * weights_BxT
        loss = jnp.sum(jnp.where(weights_BxT > 0, losses, 0) * weights_BxT)
        return {"loss": loss, "correct": jnp.sum(correct), "count": jnp.sum(weights_BxT)}

    def outputs(self, scores: Array) -> Array:
        """[B, T] int32: the likeliest id after each true one. No prediction: `generate` makes
        those.
        """
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)

    def generate(
        self, config: ModelConfig, params: Params, batch: Batch, *, layout: Layout = ANYWHERE
    ) -> Array:
        """[B, T] int32, what the sources become, by `search`; as `target_ids`, which need not be
        there.
        """
        memory = functional.encode(config, params, batch, layout=layout).hidden_BxLxD
        head, mask = head_of(params, self.name), jnp.asarray(batch["input_mask"])
        return decode.generate(config, head, memory, mask, self.search, layout=layout)

    def rows(
        self,
        examples: Sequence[PairExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> PairRows:
        """Each source as [CLS] source [SEP], cut to `max_seq_length` ids; with `targets`,
        `target_ids` too, cut to T.

        Says in the log how many were cut. Raises `UserError` naming an example that lacks its
        target.
        """
        sources = [example.source for example in examples]
        ids, offsets = _framed(tokenizer, sources, max_seq_length, "sources")
        found: dict[str, np.ndarray] = {}
        if targets:
            length = self.search.max_target_length
            flat, begins = _framed(tokenizer, _targets(self.name, examples), length, "targets")
            found["target_ids"] = np.full((len(examples), length), self.search.pad_id, np.int32)
            found["target_ids"][np.arange(length)[None, :] < np.diff(begins)[:, None]] = flat
        second, numbers = (
            np.diff(offsets).astype(np.int32),
            np.arange(len(examples), dtype=np.int64),
        )
        return PairRows(ids, offsets, second, numbers, found, tokenizer=tokenizer)

    def predict(
        self, outputs: Sequence[np.ndarray], rows: Rows, examples: Sequence[PairExample]
    ) -> list[str]:
        """The text of each example, from the ids [T] that `generate` gave."""
        assert isinstance(rows, PairRows)
        return [rows.tokenizer.decode(self._inner(ids)) for ids in outputs]

    def figures(
        self, predictions: Sequence[str], examples: Sequence[PairExample]
    ) -> dict[str, float]:
        """`bleu` of the corpus in 0..100, as sacrebleu has it (tokenizer 13a), and `exact_match`,
        equal texts' share.

        Raises `UserError` where sacrebleu is not installed.
        """
        references = _targets(self.name, examples)
        same = lambda text: " ".join((text.lower() if self.lowercase else text).split())  # noqa: E731
        equal = [
            same(text) == same(wanted) for text, wanted in zip(predictions, references, strict=True)
        ]
        return {
            "bleu": bleu(predictions, references, self.lowercase),
            "exact_match": float(np.mean(equal)),
        }

    def _target_ids(self, batch: Batch) -> Array:
        """Without whatever stands in the items that fill up a batch: not a number would spread
        through gradients.
        """
        ids, weights = jnp.asarray(batch["target_ids"]), jnp.asarray(batch["item_weights"])
        return jnp.where(weights[:, None] > 0, ids, self.search.pad_id)

    def _labels(self, batch: Batch) -> tuple[Array, Array]:
        """(the id after each [B, T], its weight float32): the inputs keep all T, which meshes
        divide.
        """
        ids_BxT = self._target_ids(batch)
        labels_BxT = jnp.pad(ids_BxT[:, 1:], ((0, 0), (0, 1)), constant_values=self.search.pad_id)
        weights = jnp.asarray(batch["item_weights"]).astype(jnp.float32)
        return labels_BxT, (labels_BxT != self.search.pad_id) * weights[:, None]

    def _inner(self, ids: np.ndarray) -> np.ndarray:
        """The ids between `cls_id` and what ends them."""
        ends = np.flatnonzero(np.isin(ids, [self.search.sep_id, self.search.pad_id]))
        return ids[1 : ends[0] if len(ends) else len(ids)]


def make_task(
    name: str,
    tokenizer: Tokenizer,
    *,
    max_target_length: int = 64,
    beam_size: int = 4,
    length_penalty: float = 0.6,
    label_smoothing: float = 0.0,
) -> Seq2Seq:
    """The task for texts of this tokenizer; beam and length penalty by default as in arXiv
    1706.03762, section 6.1.
    """
    bleu(["a"], ["a"], True)  # where it is not installed, not after the first epoch
    search = decode.Search(
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        pad_id=tokenizer.pad_id,
        vocab_size=tokenizer.vocab_size,
        max_target_length=max_target_length,
        beam_size=beam_size,
        length_penalty=length_penalty,
    )
    return Seq2Seq(name, search, label_smoothing, tokenizer.lowercase)


def bleu(predictions: Sequence[str], references: Sequence[str], lowercase: bool) -> float:
    """Corpus BLEU in 0..100 by sacrebleu (arXiv 1804.08771), one reference each."""
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        raise UserError(
            "bleu: found no package sacrebleu, expected it: pip install sacrebleu"
        ) from error
    return float(
        sacrebleu.corpus_bleu(list(predictions), [list(references)], lowercase=lowercase).score
    )


def _targets(name: str, examples: Sequence[PairExample]) -> list[str]:
    for example in examples:
        check(
            example.target is not None,
            where=f"task {name}: example {example.id}",
            found="no target",
            expected="one",
        )
    return [example.target or "" for example in examples]


def _framed(
    tokenizer: Tokenizer, texts: Sequence[str], longest: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """(ids, offsets): each text between [CLS] and [SEP], at most `longest` ids; the log says how
    many were cut.
    """
    inner, begins = tokenizer.encode_batch(texts)
    lengths = np.minimum(np.diff(begins), longest - 2)
    cut = int(np.sum(lengths < np.diff(begins)))
    if cut:
        log.warning(
            "%s longer than %d ids, which were cut to them: %d of %d",
            what,
            longest,
            cut,
            len(texts),
        )
    offsets = np.concatenate([[0], np.cumsum(lengths + 2)]).astype(np.int64)
    ids = np.empty(offsets[-1], np.int32)
    ids[ranges(offsets[:-1] + 1, offsets[1:] - 1)] = inner[
        ranges(begins[:-1], begins[:-1] + lengths)
    ]
    ids[offsets[:-1]], ids[offsets[1:] - 1] = tokenizer.cls_id, tokenizer.sep_id
    return ids, offsets
