"""The task of sequence to sequence: encoding of pairs, loss, generation of texts, and BLEU."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.model import functional
from bertjax.model.functional import DECODER_GROUPS, Params
from bertjax.model.heads.soft_targets import weighted_sum
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.tasks.examples import PairExample
from bertjax.tasks.linear_head import head_of
from bertjax.tasks.metric_table import Scale
from bertjax.tasks.seq2seq import decode, decoder
from bertjax.tasks.seq2seq.composition import check_composition
from bertjax.tasks.seq2seq.rows import EncodedPairs, encode_pairs, targets_of
from bertjax.tasks.seq2seq.text_metrics import (
    DEFAULT_TOKENIZER,
    EXACT_MATCH,
    TextMetric,
    check_installed,
    metrics_of,
)
from bertjax.tasks.task import EncodedExamples
from bertjax.types import Batch

# Number that is folded into the step's key for the decoder. The encoder uses the key without it,
# and linear heads fold in 1.
DECODER = 2


@dataclass(frozen=True)
class Seq2Seq:
    """A task that generates a target for each source.

    Beside the sources, a batch has `target_ids`, int32 [B, T]: `cls_id`, the target, `sep_id`, and
    then `pad_id`s.
    """

    name: str
    search: decode.Search
    """The special ids, T, and the settings of the search for targets."""
    label_smoothing: float = 0.0
    """Share of the probability that the loss spreads over the vocabulary (arXiv 1512.00567)."""
    lowercase: bool = False
    """True if the tokenizer cannot produce upper case, so that a metric that ignores case is the
    usual one."""
    bleu_tokenizer: str = DEFAULT_TOKENIZER
    """What divides texts into the words of BLEU."""
    metrics: tuple[str, ...] = ()
    """The chosen metrics; the first selects the best checkpoint; empty: BLEU."""

    per_token = False
    generates = True

    @property
    def metric(self) -> str:
        """The chosen metric; without one BLEU, which ignores case if the tokenizer does."""
        if self.metrics:
            return self.metrics[0]
        return TextMetric(self.bleu_tokenizer, self.lowercase).name

    @property
    def metric_scale(self) -> Scale:
        """The scale of the metric."""
        return Scale.SHARE if self.metric.startswith(EXACT_MATCH) else Scale.POINTS

    @property
    def text_metrics(self) -> tuple[TextMetric, ...]:
        """The metrics that `figures` returns: those that ignore case only if they are needed."""
        return tuple(
            metric
            for metric in metrics_of(self.bleu_tokenizer)
            if self.lowercase or not metric.lowercase or metric.name in self.metrics
        )

    def __post_init__(self) -> None:
        search, where = self.search, f"task {self.name}"
        check(
            0 <= self.label_smoothing < 1,
            where=f"{where}: label_smoothing",
            found=self.label_smoothing,
            expected="0 to below 1",
        )
        # Room for [CLS], one id and [SEP].
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

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """Return the parameters of a new decoder; `initial_params` replaces them by a checkpoint's.

        Raises `UserError` if T is larger than the model's number of positions, and for a model
        whose layers are no decoder's.
        """
        check_composition(config)
        length, longest = self.search.max_target_length, config.max_length
        check(
            length <= longest,
            where=f"task {self.name}: max_target_length",
            found=length,
            expected=f"at most the model's {longest}",
        )
        return decoder.init(config, key)

    def initial_params(self, config: ModelConfig, new: Params, restored: Params) -> Params:
        """Return the decoder's initial parameters, from new ones and those of a restored model.

        The restored model is that of `finetune.decoder_from`, or else the encoder. Cross-attention
        stays new. Without a restored model, all parameters are new.
        """
        donor = restored.get(DECODER_GROUPS, restored)
        if "embeddings" in donor and "encoder" in donor:
            return decoder.warm_start(config, new, donor)
        return new

    def head_axes(self, config: ModelConfig) -> Params:
        """Return the head's tree with a PartitionSpec of logical axis names for each leaf."""
        return decoder.logical_axes(config)

    def logits(
        self,
        config: ModelConfig,
        params: Params,
        batch: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """Return the logits of the id after each of `target_ids`, float32 [B, T, V].

        They depend on the source and on the target's ids up to that position.
        """
        memory = functional.encode(config, params, batch, key=key, layout=layout).hidden_BxLxD
        decoder_key = None if key is None else jax.random.fold_in(key, DECODER)
        head, mask = head_of(params, self.name), jnp.asarray(batch["input_mask"])
        targets = self._target_ids(batch)
        return decoder.logits(config, head, memory, mask, targets, key=decoder_key, layout=layout)

    def count(self, batch: Batch) -> Array:
        """Return the number of ids to predict: those of the targets, including `sep_id`."""
        return jnp.sum(self._labels(batch)[1])

    def sums(self, logits: Array, batch: Batch) -> dict[str, Array]:
        """Return `loss`, `count` and `correct`, all counted in target ids.

        The loss is cross-entropy in nats with label smoothing. `correct` is the number of ids that
        are predicted rightly from the true ids before them.
        """
        labels_BxT, weights_BxT = self._labels(batch)
        e = self.label_smoothing
        true_logits = jnp.take_along_axis(logits, labels_BxT[:, :, None], axis=-1)[:, :, 0]
        targets = (1 - e) * true_logits
        if e:
            # The mean of the logits over the vocabulary takes the place of smoothed targets, which
            # would be an array [B, T, V].
            targets += e * jnp.mean(logits, axis=-1)
        losses = jax.nn.logsumexp(logits, axis=-1) - targets
        correct = (jnp.argmax(logits, axis=-1) == labels_BxT) * weights_BxT
        loss = weighted_sum(losses, weights_BxT)
        return {"loss": loss, "correct": jnp.sum(correct), "count": jnp.sum(weights_BxT)}

    def outputs(self, logits: Array) -> Array:
        """Return the most probable id after each true id, int32 [B, T].

        These are not used for predictions, which come from `generate`.
        """
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def generate(
        self, config: ModelConfig, params: Params, batch: Batch, *, layout: Layout = ANYWHERE
    ) -> Array:
        """Return the generated targets, int32 [B, T]; the batch needs no `target_ids`."""
        memory = functional.encode(config, params, batch, layout=layout).hidden_BxLxD
        head, mask = head_of(params, self.name), jnp.asarray(batch["input_mask"])
        return decode.generate(config, head, memory, mask, self.search, layout=layout)

    def encode(
        self,
        examples: Sequence[PairExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> EncodedPairs:
        """Return a row for each source, such as [CLS] source [SEP], cut to `max_seq_length` ids.

        With `targets` the result also has `target_ids`, cut to T ids. The log says how many texts
        were cut. Raises `UserError` with the first example that has no target.
        """
        return encode_pairs(
            examples,
            tokenizer,
            max_seq_length,
            self.search.max_target_length if targets else 0,
            name=self.name,
        )

    def predict(
        self,
        outputs: Sequence[np.ndarray],
        encoded: EncodedExamples,
        examples: Sequence[PairExample],
    ) -> list[str]:
        """Return the text of each example; `outputs` has the ids [T] from `generate`."""
        assert isinstance(encoded, EncodedPairs)
        return [encoded.tokenizer.decode(self._inner(ids)) for ids in outputs]

    def figures(
        self, predictions: Sequence[str], examples: Sequence[PairExample]
    ) -> dict[str, float]:
        """Return BLEU of the corpus and exact match by the names of `text_metrics`.

        Both count case. If the tokenizer cannot produce upper case, there are also those that do
        not. Raises `UserError` if sacrebleu is not installed.
        """
        references = targets_of(examples, self.name)
        return {metric.name: metric.value(predictions, references) for metric in self.text_metrics}

    def _target_ids(self, batch: Batch) -> Array:
        """Return `target_ids`, with only padding for the items that fill up a batch.

        Otherwise a NaN from such an item would reach the gradients, because 0 * NaN is NaN.
        """
        ids, weights = jnp.asarray(batch["target_ids"]), jnp.asarray(batch["item_weights"])
        return jnp.where(weights[:, None] > 0, ids, self.search.pad_id)

    def _labels(self, batch: Batch) -> tuple[Array, Array]:
        """Return the id after each target id, int32 [B, T], and its weight, float32 [B, T].

        There are T labels, and the last one is padding: a mesh divides an axis of T, not of T - 1.
        """
        ids_BxT = self._target_ids(batch)
        labels_BxT = jnp.pad(ids_BxT[:, 1:], ((0, 0), (0, 1)), constant_values=self.search.pad_id)
        weights = jnp.asarray(batch["item_weights"]).astype(jnp.float32)
        return labels_BxT, (labels_BxT != self.search.pad_id) * weights[:, None]

    def _inner(self, ids: np.ndarray) -> np.ndarray:
        """Return the ids after `cls_id`, up to the first `sep_id` or `pad_id`."""
        ends = np.flatnonzero(np.isin(ids, [self.search.sep_id, self.search.pad_id]))
        # A target that was cut at T ids has no end.
        end = ends[0] if len(ends) else len(ids)
        return ids[1:end]


def make_task(
    name: str,
    tokenizer: Tokenizer,
    *,
    max_target_length: int = 64,
    beam_size: int = 4,
    length_penalty: float = 0.6,
    label_smoothing: float = 0.0,
    bleu_tokenizer: str = DEFAULT_TOKENIZER,
) -> Seq2Seq:
    """Return the task for this tokenizer.

    The defaults of beam size and length penalty are those of arXiv 1706.03762, section 6.1. Raises
    `UserError` if sacrebleu is not installed, or if padding would end a text.
    """
    ends = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id}
    check(
        len(ends) == 3,
        where=f"task {name}",
        found="a tokenizer in which one token pads, begins or ends a text",
        expected="a token for each: the end of a target would be its padding",
    )
    check_installed()  # now, not after the first epoch
    search = decode.Search(
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        pad_id=tokenizer.pad_id,
        vocab_size=tokenizer.vocab_size,
        max_target_length=max_target_length,
        beam_size=beam_size,
        length_penalty=length_penalty,
    )
    return Seq2Seq(name, search, label_smoothing, tokenizer.lowercase, bleu_tokenizer)
