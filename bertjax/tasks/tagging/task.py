"""Tagging: a tag for each word of a sentence, on its first piece (section 5.3 of arXiv 1810.04805)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.data.ragged import ranges
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, mismatch
from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.model.linear_head import init_linear
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.linear_head import head_of, token_scores
from bertjax.tasks.metrics import confusion_matrix
from bertjax.tasks.tagging.entity_metrics import broken, entity_scores, is_entity_tags, scheme_of
from bertjax.tasks.task import Linear, Rows
from bertjax.types import Batch

OUTSIDE = "O"
LABELS = "labels"
"""Token target: the number of a word's tag on its first piece, -1 elsewhere."""
WORD_BEGINS = "word_begins"
"""Token target, known without tags too: 1 on a word's first piece, 0 elsewhere."""
SPECIAL = 2  # [CLS] and [SEP] in a row

Tags = tuple[str, ...]


@dataclass(frozen=True)
class Tagging(Linear):
    """A task with C tags, `labels`; as `Task` says, what is not in the methods' own words."""

    name: str
    labels: Tags
    label_smoothing: float = 0.0
    """Share of the probability that the loss spreads over all tags (arXiv 1512.00567)."""
    class_weights: tuple[float, ...] = ()
    """What a word of each tag weighs in the loss; empty: 1."""

    def __post_init__(self) -> None:
        if self.class_weights and len(self.class_weights) != len(self.labels):
            raise ValueError(
                f"{len(self.class_weights)} class weights for {len(self.labels)} labels"
            )

    @property
    def metric(self) -> str:
        """f1 over entities, or accuracy over words where the tags are of another kind, as parts of
        speech are.
        """
        return "f1" if is_entity_tags(self.labels) else "accuracy"

    @property
    def per_token(self) -> bool:
        return True

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        return init_linear(config, key, len(self.labels))

    def scores(
        self,
        config: ModelConfig,
        params: Params,
        batch: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """[B, L, C] float32."""
        return token_scores(
            config, params, head_of(params, self.name), batch, key=key, layout=layout
        )

    def count(self, batch: Batch) -> Array:
        """The weight of the words, each that of its tag."""
        return jnp.sum(self._weights(batch))

    def sums(self, scores: Array, batch: Batch) -> dict[str, Array]:
        """`loss`, softmax cross-entropy in nats; `accuracy`, the weight of the words got right;
        `count`, of all words.

        `batch["labels"]` [B, L] int32: -1 where no word begins. The smoothed part of the loss has
        the weight of each tag, and the divisor that of the true ones: what PyTorch's
        CrossEntropyLoss(weight, label_smoothing=e) takes the mean of. An item of weight 0 adds
        nothing, and no gradient, whatever it holds.
        """
        items_BxL, labels, e = _words(batch), batch[LABELS], self.label_smoothing
        weights = self._weights(batch)
        log_probs = jax.nn.log_softmax(
            jnp.where(items_BxL[:, :, None] > 0, scores.astype(jnp.float32), 0)
        )
        true = jax.nn.one_hot(labels, len(self.labels), dtype=jnp.float32)  # zeros for -1
        wanted = ((1 - e) * true + e / len(self.labels)) * self._class_weights()[None, None, :]
        right = (jnp.argmax(scores, axis=-1) == labels).astype(jnp.float32)
        return {
            "loss": -jnp.sum(items_BxL[:, :, None] * wanted * log_probs),
            "accuracy": jnp.sum(right * weights),
            "count": jnp.sum(weights),
        }

    def _weights(self, batch: Batch) -> Array:
        """What each token counts, [B, L] float32."""
        return _words(batch) * self._class_weights()[jnp.maximum(batch[LABELS], 0)]

    def _class_weights(self) -> Array:
        return jnp.asarray(self.class_weights or (1.0,) * len(self.labels), jnp.float32)

    def outputs(self, scores: Array) -> Array:
        """The number of each token's best tag, [B, L] int32."""
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)

    def rows(
        self,
        examples: Sequence[TaggedExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> Rows:
        """[CLS] words [SEP], in as many rows as a sentence needs, cut between words.

        Each word has a piece: [UNK] where the tokenizer gives none. A word of more pieces than a
        row holds keeps its first. Token targets are `word_begins` and, with `targets`, `labels`.
        Raises `UserError` naming sentence and word for a tag that is not among the task's.
        """
        words = list(chain.from_iterable(example.words for example in examples))
        found, begins = tokenizer.encode_batch(
            [f" {word}" for word in words] if _needs_space(tokenizer) else words
        )
        room = max_seq_length - SPECIAL
        sizes = np.minimum(np.maximum(np.diff(begins), 1), room)
        pieces = np.concatenate([[0], np.cumsum(sizes)])
        sentences = list(accumulate((len(example.words) for example in examples), initial=0))
        firsts, example_of = _cut(pieces, sentences, room)
        row_of = np.repeat(np.arange(len(example_of)), np.diff(firsts))
        places = pieces[:-1] + SPECIAL * row_of + 1  # of each word's first piece
        offsets = pieces[firsts] + SPECIAL * np.arange(len(firsts))
        ids = np.full(offsets[-1], tokenizer.sep_id, np.int32)
        ids[offsets[:-1]] = tokenizer.cls_id
        ids[places] = tokenizer.unk_id
        known = np.flatnonzero(np.diff(begins))
        ids[ranges(places[known], places[known] + sizes[known])] = found[
            ranges(begins[known], begins[known] + sizes[known])
        ]
        token_targets = {WORD_BEGINS: np.zeros(len(ids), np.int32)}
        token_targets[WORD_BEGINS][places] = 1
        if targets:
            token_targets[LABELS] = np.full(len(ids), -1, np.int32)
            token_targets[LABELS][places] = self._numbers(examples)
        return Rows(
            ids, offsets, np.diff(offsets).astype(np.int32), example_of, token_targets=token_targets
        )

    def _numbers(self, examples: Sequence[TaggedExample]) -> list[int]:
        """The number of each word's tag, of all sentences one after another."""
        number = {label: i for i, label in enumerate(self.labels)}
        for example in examples:
            where = f"{self.name}: sentence {example.id}"
            tags = example.tags
            check(tags is not None, where=where, found="no tags", expected="one for each word")
            check(
                len(tags or ()) == len(example.words),
                where=where,
                found=f"{len(tags or ())} tags",
                expected=f"{len(example.words)}",
            )
            for i, tag in enumerate(tags or ()):
                if tag not in number:
                    found, expected = (
                        f"the tag {tag!r}",
                        f"one of the training set: {', '.join(self.labels)}",
                    )
                    raise mismatch(
                        where=f"{where}, word {i + 1} {example.words[i]!r}",
                        found=found,
                        expected=expected,
                    )
        return [number[tag] for example in examples for tag in example.tags or ()]

    def predict(
        self, outputs: Sequence[np.ndarray], rows: Rows, examples: Sequence[TaggedExample]
    ) -> list[Tags]:
        """The tags of each sentence, one a word."""
        numbers = np.concatenate([np.zeros(0, np.int32), *outputs])
        tags = [self.labels[i] for i in numbers[rows.token_targets[WORD_BEGINS] == 1]]
        ends = list(accumulate(len(example.words) for example in examples))
        return [
            tuple(tags[end - len(example.words) : end])
            for example, end in zip(examples, ends, strict=True)
        ]

    def figures(
        self, predictions: Sequence[Tags], examples: Sequence[TaggedExample]
    ) -> dict[str, float]:
        """`precision`, `recall` and `f1` over entities where the tags are of entities, and
        `accuracy` over words.
        """
        gold = [example.tags or () for example in examples]
        pairs = [
            (a, b)
            for true, found in zip(gold, predictions, strict=True)
            for a, b in zip(true, found, strict=True)
        ]
        accuracy = {"accuracy": sum(a == b for a, b in pairs) / max(len(pairs), 1)}
        if self.metric != "f1":
            return accuracy
        scores, _ = entity_scores(gold, predictions)
        return {"f1": scores.f1, "precision": scores.precision, "recall": scores.recall} | accuracy


def _words(batch: Batch) -> Array:
    """The item's weight where a word begins, else 0; [B, L] float32."""
    return jnp.where(batch[LABELS] >= 0, batch["item_weights"].astype(jnp.float32)[:, None], 0)


def _needs_space(tokenizer: Tokenizer) -> bool:
    """Whether a word within a sentence has other pieces than one that begins it."""
    return tokenizer.kind == "byte_bpe"


def _cut(pieces: np.ndarray, sentences: Sequence[int], room: int) -> tuple[np.ndarray, np.ndarray]:
    """(the first word of each row, and the end, int64 [rows + 1]; the sentence of each row, int64
    [rows]).

    `pieces` says where each word's begin, `sentences` at which word each sentence does; at most
    `room` in a row.
    """
    firsts, example_of = [], []
    for example, (begin, end) in enumerate(pairwise(sentences)):
        while True:
            firsts.append(begin)
            example_of.append(example)
            if pieces[end] - pieces[begin] <= room:
                break
            begin = int(np.searchsorted(pieces, pieces[begin] + room, "right")) - 1
    return np.array([*firsts, sentences[-1]], np.int64), np.array(example_of, np.int64)


def check_rules(examples: Sequence[TaggedExample]) -> None:
    """Raise `UserError` naming sentence, word and tag where entities' tags break the rules of their
    scheme.

    The scheme is what most of them are in (`scheme_of`); IOB1, and tags of other kinds, have no
    rules to break.
    """
    scheme = scheme_of(example.tags or () for example in examples)
    if scheme is None:
        return
    for example in examples:
        found = broken(example.tags or (), scheme)
        if found:
            where = f"sentence {example.id}, word {found.word + 1} {example.words[found.word]!r}"
            raise mismatch(
                where=where,
                found=f"{found.tag} after {found.before}",
                expected=f"a sequence by the rules of {scheme}",
            )


def labels_of(examples: Sequence[TaggedExample]) -> Tags:
    """The tags that occur, sorted, O first."""
    return tuple(
        sorted(
            {tag for example in examples for tag in example.tags or ()},
            key=lambda tag: (tag != OUTSIDE, tag),
        )
    )


def balanced_weights(examples: Sequence[TaggedExample], labels: Sequence[str]) -> tuple[float, ...]:
    """For `class_weights`: words / (tags * words of the tag), each of which must occur."""
    counts = Counter(tag for example in examples for tag in example.tags or ())
    return tuple(counts.total() / (len(labels) * counts[label]) for label in labels)


class WrongSentence(NamedTuple):
    """A sentence with words whose tag is not the gold one."""

    id: str
    wrong: int
    """How many words."""
    text: str
    gold: str
    predicted: str
    """WORD/TAG of the words where either is not O."""


def worst_errors(
    predictions: Sequence[Tags], examples: Sequence[TaggedExample], n: int
) -> list[WrongSentence]:
    """The `n` sentences with most wrong words, the worst first; those without any are left out."""
    found = []
    for predicted, example in zip(predictions, examples, strict=True):
        words = list(zip(example.words, example.tags or (), predicted, strict=True))
        wrong = sum(tag != guess for _, tag, guess in words)
        if wrong:
            some = [word for word in words if word[1:] != (OUTSIDE, OUTSIDE)]
            shown = [" ".join(f"{word[0]}/{word[which]}" for word in some) for which in (1, 2)]
            found.append(WrongSentence(example.id, wrong, " ".join(example.words), *shown))
    return sorted(found, key=lambda error: -error.wrong)[:n]


def confusion(
    predictions: Sequence[Tags], examples: Sequence[TaggedExample], labels: Sequence[str]
) -> np.ndarray:
    """Words by gold tag (row) and predicted tag (column), int64 [C, C]."""
    number = {label: i for i, label in enumerate(labels)}
    gold = [number[tag] for example in examples for tag in example.tags or ()]
    return confusion_matrix(
        gold, [number[tag] for tags in predictions for tag in tags], len(labels)
    )
