"""Multiple choice: each ending read after the context, one score each (section 4.4 of arXiv
1810.04805).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.model.linear_head import init_linear
from bertjax.tasks.classification.task import encoded_pairs
from bertjax.tasks.examples import ChoiceExample, TextExample
from bertjax.tasks.linear_head import head_of, pooled_scores
from bertjax.tasks.task import Linear, Rows
from bertjax.types import Batch

ROWS = ("input_ids", "input_mask", "segment_ids")

log = logging.getLogger("bertjax")


class ChoicePrediction(NamedTuple):
    """What is predicted of one example."""

    choice: int
    """The likeliest ending, from 0."""
    probabilities: np.ndarray
    """float32 [C], of each ending; their sum is 1."""


@dataclass(frozen=True)
class Choice(Linear):
    """A task of `choices` endings (C below); as `Task` says, what is not in the methods' own words."""

    name: str
    choices: int
    label_smoothing: float = 0.0
    """Share of the probability that the loss spreads over all endings (arXiv 1512.00567)."""

    metric = "accuracy"
    per_token = False

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """One linear layer to one number: the same for all endings."""
        return init_linear(config, key, 1)

    def scores(
        self,
        config: ModelConfig,
        params: Params,
        batch: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """[B, C] float32: of each ending's row the head's number on the pooled vector; rows are [B,
        C, L].
        """
        items, choices, length = batch["input_ids"].shape
        # The items stay the major axis, so a device's rows are those of its items and none moves.
        rows = {
            name: layout(
                jnp.asarray(batch[name]).reshape(items * choices, length), "batch", "length"
            )
            for name in ROWS
        }
        flat = pooled_scores(
            config, params, head_of(params, self.name), rows, key=key, layout=layout
        )
        return layout(flat.reshape(items, choices), "batch", None)

    def sums(self, scores: Array, batch: Batch) -> dict[str, Array]:
        """`loss`, softmax cross-entropy over the endings; `accuracy`, the weight of items got
        right; `count`.

        `batch["labels"]` [B] int32; whatever they and the scores are, an item of weight 0 adds
        nothing.
        """
        weights = batch["item_weights"].astype(jnp.float32)
        log_probs = jax.nn.log_softmax(scores.astype(jnp.float32), axis=-1)
        true = jax.nn.one_hot(batch["labels"], self.choices, dtype=jnp.float32)
        wanted = (1 - self.label_smoothing) * true + self.label_smoothing / self.choices
        losses = -jnp.sum(wanted * log_probs, axis=-1)
        correct = (jnp.argmax(scores, axis=-1) == batch["labels"]).astype(jnp.float32)
        return {
            "loss": jnp.sum(jnp.where(weights > 0, losses, 0) * weights),
            "accuracy": jnp.sum(correct * weights),
            "count": jnp.sum(weights),
        }

    def rows(
        self,
        examples: Sequence[ChoiceExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> Rows:
        """C rows an example: [CLS] context [SEP] start ending [SEP], token type 1 from the start
        on.

        A row that is too long loses ids from the end of the longer of its two parts, until it fits;
        of the second where they are equally long, as in the original BERT; the log says how many
        did. `targets`: `labels`, int32 [items]. Raises `UserError` naming the example where it has
        not C endings, or no label in 0..C-1 though `targets`.
        """
        for example in examples:
            where = f"{self.name}: example {example.id}"
            check(
                len(example.endings) == self.choices,
                where=where,
                found=f"{len(example.endings)} endings",
                expected=str(self.choices),
            )
            known = example.label is not None and 0 <= example.label < self.choices
            check(
                known or not targets,
                where=where,
                found=f"the label {example.label}",
                expected=f"0 to {self.choices - 1}",
            )
        pairs = [
            TextExample(
                example.id,
                example.context,
                f"{example.start} {ending}" if example.start else ending,
            )
            for example in examples
            for ending in example.endings
        ]
        ids, offsets, second, cut = encoded_pairs(tokenizer, pairs, max_seq_length)
        if cut:
            log.info("%s: rows cut to %d ids: %d of %d", self.name, max_seq_length, cut, len(pairs))
        return Rows(
            ids=ids,
            offsets=offsets,
            second=second,
            example=np.arange(len(examples)),
            targets={"labels": np.array([example.label for example in examples], np.int32)}
            if targets
            else {},
            choices=self.choices,
        )

    def predict(
        self, outputs: Sequence[np.ndarray], rows: Rows, examples: Sequence[ChoiceExample]
    ) -> list[ChoicePrediction]:
        """The softmax of each example's scores, [C]."""
        found = []
        for scores in outputs:
            exponentials = np.exp(np.asarray(scores, np.float32) - np.max(scores))
            found.append(
                ChoicePrediction(int(np.argmax(scores)), exponentials / exponentials.sum())
            )
        return found

    def figures(
        self, predictions: Sequence[ChoicePrediction], examples: Sequence[ChoiceExample]
    ) -> dict[str, float]:
        """`accuracy`, the share of examples whose right ending is the likeliest."""
        right = [
            p.choice == example.label for p, example in zip(predictions, examples, strict=True)
        ]
        return {"accuracy": float(np.mean(right))}
