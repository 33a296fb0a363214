"""Multiple choice: each ending has a row, context and ending, for which the head gives one logit.

The task is that of section 4.4 of arXiv 1810.04805.
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
from bertjax.model.heads.soft_targets import weighted_sum
from bertjax.model.layout import Layout
from bertjax.model.linear_head import init_linear
from bertjax.tasks.encode_pairs import encode_pairs
from bertjax.tasks.examples import ChoiceExample, TextExample
from bertjax.tasks.linear_head import head_of, pooled_logits
from bertjax.tasks.task import EncodedExamples, LinearHeadTask
from bertjax.types import Batch

# Arrays with a row for each ending; the others have a value for each item.
MODEL_INPUTS = ("input_ids", "input_mask", "segment_ids")

log = logging.getLogger("bertjax")


class ChoicePrediction(NamedTuple):
    """The prediction for one example."""

    choice: int
    """Number of the most probable ending, from 0."""
    probabilities: np.ndarray
    """float32 [C], the probability of each ending; the sum is 1."""


@dataclass(frozen=True)
class Choice(LinearHeadTask):
    """A task whose examples all have the same number of endings, `choices` (C below)."""

    name: str
    choices: int
    label_smoothing: float = 0.0
    """Share of the probability that the loss spreads over all endings (arXiv 1512.00567)."""

    metric = "accuracy"
    per_token = False

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """Return a new linear layer with one output; it is applied to each ending."""
        return init_linear(config, key, 1)

    def encoder_rows(self, batch: Batch, layout: Layout) -> Batch:
        """Return the rows of all endings, [B x C, L]; in the batch they are [B, C, L]."""
        items, choices, length = batch["input_ids"].shape
        rows = {}
        for name in MODEL_INPUTS:
            # The axis of the items stays first, so each device keeps the rows of its own items.
            flat = jnp.asarray(batch[name]).reshape(items * choices, length)
            rows[name] = layout(flat, "batch", "length")
        return rows

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
        """Return the logit of each ending, float32 [B, C]."""
        head = head_of(params, self.name)
        logits = pooled_logits(
            config, params, head, hidden_BxLxD, rows["input_mask"], key=key, layout=layout
        )
        return layout(logits.reshape(-1, self.choices), "batch", None)

    def sums(self, logits: Array, batch: Batch) -> dict[str, Array]:
        """Return `loss`, `count`, and `accuracy`, the total weight of the right predictions.

        The loss is softmax cross-entropy over the endings in nats. `batch["labels"]` is int32 [B].
        An item of weight 0 does not change the sums, whatever its label and logits are.
        """
        weights = batch["item_weights"].astype(jnp.float32)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        true = jax.nn.one_hot(batch["labels"], self.choices, dtype=jnp.float32)
        e = self.label_smoothing
        targets = (1 - e) * true + e / self.choices
        losses = -jnp.sum(targets * log_probs, axis=-1)
        right = (jnp.argmax(logits, axis=-1) == batch["labels"]).astype(jnp.float32)
        return {
            "loss": weighted_sum(losses, weights),
            "accuracy": jnp.sum(right * weights),
            "count": jnp.sum(weights),
        }

    def encode(
        self,
        examples: Sequence[ChoiceExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> EncodedExamples:
        """Return C rows for each example: [CLS] context [SEP] start ending [SEP].

        Segment 1 begins with the start. `bertjax.tasks.encode_pairs` cuts rows that are too long;
        the log says how many. If `targets` is true, the target `labels` is int32 [items]. Raises
        `UserError`, which names the example, if an example does not have C endings, or if `targets`
        is true and its label is not in 0..C-1.
        """
        pairs = []
        for example in examples:
            self._check_example(example, targets)
            for ending in example.endings:
                continuation = f"{example.start} {ending}" if example.start else ending
                pairs.append(TextExample(example.id, example.context, continuation))
        encoded = encode_pairs(tokenizer, pairs, max_seq_length)
        if encoded.truncated:
            log.info(
                "%s: rows cut to %d ids: %d of %d",
                self.name,
                max_seq_length,
                encoded.truncated,
                len(pairs),
            )
        target_arrays = {}
        if targets:
            target_arrays["labels"] = np.array([example.label for example in examples], np.int32)
        return EncodedExamples(
            encoded.ids,
            encoded.offsets,
            encoded.second,
            np.arange(len(examples)),
            target_arrays,
            choices=self.choices,
        )

    def _check_example(self, example: ChoiceExample, labelled: bool) -> None:
        where = f"{self.name}: example {example.id}"
        check(
            len(example.endings) == self.choices,
            where=where,
            found=f"{len(example.endings)} endings",
            expected=str(self.choices),
        )
        known = example.label is not None and 0 <= example.label < self.choices
        check(
            known or not labelled,
            where=where,
            found=f"the label {example.label}",
            expected=f"0 to {self.choices - 1}",
        )

    def predict(
        self,
        outputs: Sequence[np.ndarray],
        encoded: EncodedExamples,
        examples: Sequence[ChoiceExample],
    ) -> list[ChoicePrediction]:
        """Return the most probable ending of each example; `outputs` has its logits, [C]."""
        predictions = []
        for logits in outputs:
            # The largest logit is subtracted, because exp of a number above 88 overflows float32.
            exponentials = np.exp(np.asarray(logits, np.float32) - np.max(logits))
            probabilities = exponentials / exponentials.sum()
            predictions.append(ChoicePrediction(int(np.argmax(logits)), probabilities))
        return predictions

    def figures(
        self, predictions: Sequence[ChoicePrediction], examples: Sequence[ChoiceExample]
    ) -> dict[str, float]:
        """Return `accuracy`, the share of examples whose predicted ending is the right one."""
        return {"accuracy": float(np.mean(self.are_right(predictions, examples)))}

    def are_right(
        self, predictions: Sequence[ChoicePrediction], examples: Sequence[ChoiceExample]
    ) -> list[bool]:
        """Return whether each example's predicted ending is the right one."""
        pairs = zip(predictions, examples, strict=True)
        return [prediction.choice == example.label for prediction, example in pairs]

    def certain(self, choice: int) -> np.ndarray:
        """Return float32 [C]: probability 1 for the ending `choice`, and 0 for the others."""
        return np.eye(self.choices, dtype=np.float32)[choice]
