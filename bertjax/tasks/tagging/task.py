"""Tagging: a tag for each word, on its first piece (section 5.3 of arXiv 1810.04805)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.data.ragged import ranges
from bertjax.data.row_layout import Texts
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.model.functional import Params
from bertjax.model.heads.soft_targets import soft_losses
from bertjax.model.layout import Layout
from bertjax.model.linear_head import init_linear
from bertjax.tasks.class_scores import ClassCounts, class_figure
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.linear_head import head_of, token_logits
from bertjax.tasks.metrics import confusion_matrix
from bertjax.tasks.tagging.columns import check_columns
from bertjax.tasks.tagging.cut import cut_sentences
from bertjax.tasks.tagging.entity_metrics import Scores, entity_scores
from bertjax.tasks.tagging.figures import accuracy, tag_counts, type_counts
from bertjax.tasks.tagging.labels import Tags, all_tags, check_same_form, check_unknown_tags
from bertjax.tasks.tagging.schemes import Scheme
from bertjax.tasks.tagging.tag_form import TagForm, form_of
from bertjax.tasks.task import EncodedExamples, LinearHeadTask
from bertjax.types import Batch

LABELS = "labels"
"""Token target: the number of the word's tag on its first piece, -1 on other pieces."""
WORD_BEGINS = "word_begins"
"""Token target that is always present: 1 on a word's first piece, 0 on other pieces."""


@dataclass(frozen=True)
class Tagging(LinearHeadTask):
    """A task with C tags, `labels`."""

    name: str
    labels: Tags
    label_smoothing: float = 0.0
    """Share of the probability that the loss spreads over all tags (arXiv 1512.00567)."""
    class_weights: tuple[float, ...] = ()
    """The weight in the loss of words with each tag; empty: all weights are 1."""
    metrics: tuple[str, ...] = ()
    """The chosen metrics; the first selects the best checkpoint; empty: the usual one."""
    scheme: Scheme | None = None
    """The scheme of the training tags; None if it is not known, or they are not of entities."""
    strict: bool = False
    """True if only entities whose tags follow the rules of the scheme are counted."""
    columns: tuple[int | None, ...] = ()
    """The columns of words and tags in the training files (`TaggedExample.columns`)."""

    per_token = True

    def __post_init__(self) -> None:
        if self.class_weights and len(self.class_weights) != len(self.labels):
            raise ValueError(
                f"{len(self.class_weights)} class weights for {len(self.labels)} labels"
            )
        check(
            not self.strict or self.scheme,
            where="finetune.strict_entities",
            found="True",
            expected=f"False, for {self.name}: its tags are in no known scheme of entities",
        )

    @property
    def metric(self) -> str:
        """The chosen metric; without one `f1` over entities, or `accuracy` over other tags."""
        if self.metrics:
            return self.metrics[0]
        return "accuracy" if self.form is None else "f1"

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """Return a new linear layer with an output for each tag."""
        return init_linear(config, key, len(self.labels))

    def head_logits(
        self,
        config: ModelConfig,
        params: Params,
        hidden_BxLxD: Array,
        rows: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """Return the logits of each token's tags, float32 [B, L, C]."""
        head = head_of(params, self.name)
        return token_logits(config, params, head, hidden_BxLxD, key=key, layout=layout)

    def count(self, batch: Batch) -> Array:
        """Return the sum over the words of (item weight) * (weight of the word's tag)."""
        return jnp.sum(self._token_weights(batch))

    def sums(self, logits: Array, batch: Batch) -> dict[str, Array]:
        """Return `loss`, `count`, and `accuracy`, the total weight of words with the right tag.

        The loss is softmax cross-entropy in nats. In its smoothed part each tag has its own weight.
        `count` is the sum of the weights of the true tags, so `loss` / `count` is the result of
        PyTorch's CrossEntropyLoss(weight, label_smoothing=e).

        `batch["labels"]` is int32 [B, L], -1 at tokens that do not begin a word. An item of weight
        0 changes neither the sums nor the gradients, whatever its values are.
        """
        item_weights_BxL, labels = _word_weights(batch), batch[LABELS]
        weights = self._token_weights(batch)
        is_word_BxLx1 = item_weights_BxL[:, :, None] > 0
        # Masked before the softmax, as in `SingleLabel.sums`: a weight of 0 does not remove NaN.
        log_probs = jax.nn.log_softmax(jnp.where(is_word_BxLx1, logits.astype(jnp.float32), 0))
        true = jax.nn.one_hot(labels, len(self.labels), dtype=jnp.float32)  # zeros for -1
        e = self.label_smoothing
        smoothed = (1 - e) * true + e / len(self.labels)
        targets = smoothed * self._class_weights()[None, None, :]
        right = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
        return {
            "loss": -jnp.sum(item_weights_BxL[:, :, None] * targets * log_probs),
            "accuracy": jnp.sum(right * weights),
            "count": jnp.sum(weights),
        }

    def soft_weights(self, batch: Batch) -> Array:
        """Return the weight of each token, [B, L]: the item's where a word begins, else 0."""
        begins = batch[WORD_BEGINS].astype(jnp.float32)
        # Padding has -1.
        return jnp.maximum(begins, 0) * batch["item_weights"].astype(jnp.float32)[:, None]

    def soft_losses(self, logits: Array, taught: Array, batch: Batch, temperature: float) -> Array:
        """Return the loss of each token, [B, L]; also of words with an unknown tag."""
        is_word_BxLx1 = self.soft_weights(batch)[:, :, None] > 0
        return soft_losses(
            jnp.where(is_word_BxLx1, logits, 0), jnp.where(is_word_BxLx1, taught, 0), temperature
        )

    def outputs(self, logits: Array) -> Array:
        """Return the number of each token's most probable tag, int32 [B, L]."""
        # On the device: one number a token goes to the host, and not C logits.
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def encode(
        self,
        examples: Sequence[TaggedExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> EncodedExamples:
        """Return [CLS] words [SEP]; a long sentence is cut between words into several rows.

        The special tokens are those of the tokenizer's layout for one text.

        Each word has one piece or more: [UNK] if the tokenizer gives none, or [MASK] if it has no
        [UNK]. A word that is too long for a row keeps its first pieces. Token targets are
        `word_begins` and, with `targets`, `labels`. A tag that the task does not have gives -1: the
        word is not in the loss, and the tag is never predicted (`check_unknown_tags` says so).

        Raises `UserError` if the words or tags are from other columns than those of training, or
        the tags in another form or scheme (`check_same_form`).
        """
        check_columns(self.name, examples, self.columns)
        # Word by word, so that the first piece of each is known.
        pieces, begins = tokenizer.encode_batch(_words(examples, tokenizer))
        layout = tokenizer.layout
        room = max_seq_length - layout.single_specials
        counts = np.diff(begins)
        sizes = np.minimum(np.maximum(counts, 1), room)
        cut = cut_sentences(sizes, examples, room)
        # Words that the tokenizer drops, such as control characters, need a position for their tag.
        without = tokenizer.mask_id if tokenizer.unk_id is None else tokenizer.unk_id
        inner = np.full(cut.piece_offsets[-1], without, np.int32)
        known = np.flatnonzero(counts)
        kept, places = sizes[known], cut.piece_offsets[known]
        inner[ranges(places, places + kept)] = pieces[ranges(begins[known], begins[known] + kept)]
        row_bounds = cut.piece_offsets[cut.first_words]
        rows = layout.rows(Texts(inner, row_bounds[:-1], np.diff(row_bounds)))
        row_of_word = np.repeat(np.arange(len(cut.example)), np.diff(cut.first_words))
        specials_before = layout.single_specials * row_of_word + len(layout.before)
        first_pieces = cut.piece_offsets[:-1] + specials_before
        token_targets = {WORD_BEGINS: np.zeros(len(rows.ids), np.int32)}
        token_targets[WORD_BEGINS][first_pieces] = 1
        if targets:
            token_targets[LABELS] = np.full(len(rows.ids), -1, np.int32)
            token_targets[LABELS][first_pieces] = self._tag_numbers(examples)
        return EncodedExamples(*rows, cut.example, token_targets=token_targets)

    def predict(
        self,
        outputs: Sequence[np.ndarray],
        encoded: EncodedExamples,
        examples: Sequence[TaggedExample],
    ) -> list[Tags]:
        """Return the tags of each sentence, one for each word."""
        # The empty array is for the case of no examples: NumPy cannot concatenate an empty list.
        numbers = np.concatenate([np.zeros(0, np.int32), *outputs])
        # Rows of a sentence follow each other, so the words of a sentence that was cut do too.
        word_numbers = numbers[encoded.token_targets[WORD_BEGINS] == 1]
        tags = [self.labels[number] for number in word_numbers]
        predictions = []
        begin = 0
        for example in examples:
            end = begin + len(example.words)
            predictions.append(tuple(tags[begin:end]))
            begin = end
        return predictions

    def figures(
        self, predictions: Sequence[Tags], examples: Sequence[TaggedExample]
    ) -> dict[str, float]:
        """Return `f1`, `precision` and `recall` over entities, if the tags are of entities.

        `accuracy` over words is always there, and the chosen metrics are.
        """
        gold = [example.tags or () for example in examples]
        figures = {"accuracy": accuracy(gold, predictions)}
        if self.form is not None:
            scores, _ = self._entity_scores(gold, predictions)
            entities = {"f1": scores.f1, "precision": scores.precision, "recall": scores.recall}
            figures = {**entities, **figures}
        others = [name for name in self.metrics if name not in figures]
        if others:
            labels, counts = self.class_counts(predictions, examples)
            for name in others:
                figures[name] = class_figure(name, labels, counts)
        return figures

    @property
    def form(self) -> TagForm | None:
        """The form of the tags; None if they are not tags of entities."""
        return form_of(self.labels)

    def class_counts(
        self, predictions: Sequence[Tags], examples: Sequence[TaggedExample]
    ) -> tuple[list[str], ClassCounts]:
        """Return the types of entities and their counts; of other tags, the tags and theirs."""
        gold = [example.tags or () for example in examples]
        if self.form is None:
            return tag_counts(gold, predictions)
        _, by_type = self._entity_scores(gold, predictions)
        return type_counts(by_type)

    def _entity_scores(
        self, gold: Sequence[Tags], predictions: Sequence[Tags]
    ) -> tuple[Scores, dict[str, Scores]]:
        strict = self.scheme if self.strict else None
        return entity_scores(gold, predictions, self.form, strict)

    def _token_weights(self, batch: Batch) -> Array:
        """Return the weight of each token in the count, float32 [B, L]."""
        # At tokens that do not begin a word, the label is -1 and the word weight is 0, so any tag's
        # weight can be used.
        return _word_weights(batch) * self._class_weights()[jnp.maximum(batch[LABELS], 0)]

    def _class_weights(self) -> Array:
        return jnp.asarray(self.class_weights or (1.0,) * len(self.labels), jnp.float32)

    def _tag_numbers(self, examples: Sequence[TaggedExample]) -> list[int]:
        """Return the number of each word's tag, of all sentences one after another; or -1."""
        for example in examples:
            self._check_tags(example)
        check_unknown_tags(self.name, examples, self.labels)
        # Over words the rules of the scheme are not those of training either.
        is_over_words = self.metrics[:1] == ("accuracy",)
        scheme = None if is_over_words else self.scheme
        check_same_form(self.name, examples, self.labels, scheme)
        numbers = {label: number for number, label in enumerate(self.labels)}
        return [numbers.get(tag, -1) for tag in all_tags(examples)]

    def _check_tags(self, example: TaggedExample) -> None:
        """Raise `UserError` unless each word has a tag."""
        where = f"{self.name}: sentence {example.id}"
        check(example.tags is not None, where=where, found="no tags", expected="one for each word")
        tags = example.tags or ()
        check(
            len(tags) == len(example.words),
            where=where,
            found=f"{len(tags)} tags",
            expected=f"{len(example.words)}",
        )


def _word_weights(batch: Batch) -> Array:
    """Return float32 [B, L]: the item's weight at tokens that begin a word, else 0."""
    return jnp.where(batch[LABELS] >= 0, batch["item_weights"].astype(jnp.float32)[:, None], 0)


def _words(examples: Iterable[TaggedExample], tokenizer: Tokenizer) -> list[str]:
    """Return the words of all sentences in the form that the tokenizer needs."""
    words = chain.from_iterable(example.words for example in examples)
    before = _before_word(tokenizer)
    return [before + word for word in words]


def _before_word(tokenizer: Tokenizer) -> str:
    """A space, if the first piece of a word has the one before it, as in byte-level BPE.

    Some tokenizers put it before every text: there a word alone begins as in a sentence.
    """
    ids, begins = tokenizer.encode_batch(["a", " a"])
    alone, spaced = (tokenizer.starts_word[ids[a:b][:1]].any() for a, b in pairwise(begins))
    if alone:
        return ""
    # A vocabulary may lack the letter.
    return " " if spaced or tokenizer.kind == "byte_bpe" else ""


def confusion(
    predictions: Iterable[Tags], examples: Iterable[TaggedExample], labels: Sequence[str]
) -> np.ndarray:
    """Return int64 [C, C]: the numbers of words by true tag (rows) and predicted tag (columns)."""
    numbers = {label: number for number, label in enumerate(labels)}
    true = [numbers[tag] for tag in all_tags(examples)]
    predicted = [numbers[tag] for tag in chain.from_iterable(predictions)]
    return confusion_matrix(true, predicted, len(labels))
