"""Questions whose answers are spans of a paragraph (arXiv 1810.04805, sections 4.2 and 4.3)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.model.functional import Params
from bertjax.model.heads.soft_targets import soft_losses, weighted_sum
from bertjax.model.layout import Layout
from bertjax.model.linear_head import init_linear
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.kind import AUTO
from bertjax.tasks.linear_head import head_of, token_logits
from bertjax.tasks.metric_table import Scale
from bertjax.tasks.question_answering import squad_metrics
from bertjax.tasks.question_answering.answer_rules import (
    AnswerRule,
    named_rule,
    rules_of_texts,
)
from bertjax.tasks.question_answering.answers import SpanPrediction, predictions
from bertjax.tasks.question_answering.windows import (
    UNKNOWN,
    EncodedQuestions,
    encode_questions,
)
from bertjax.tasks.task import EncodedExamples, LinearHeadTask
from bertjax.types import Batch

# Replaces the logits of padding. It is finite, so that a row of only padding has a finite loss.
MASKED = -1e30
# In logits; rounding changes odds by some 1e-6.
ODDS_MARGIN = 1e-3


@dataclass(frozen=True)
class Spans(LinearHeadTask):
    """A task whose answers are spans of a paragraph."""

    name: str
    version_2: bool = False
    """True if questions may have no answer (SQuAD 2.0)."""
    # The defaults of these four and of the threshold are those of run_squad.py's flags.
    doc_stride: int = 128
    """Number of pieces from the beginning of one window to the beginning of the next."""
    max_query_length: int = 64
    """Maximum number of pieces of a question; longer questions are cut."""
    max_answer_length: int = 30
    """Maximum number of pieces of an answer."""
    n_best_size: int = 20
    """Number of best starts and ends of each window, and of best answers to each question."""
    null_threshold: float = 0.0
    """Odds, in logits, above which "no answer" is predicted (see `choose_threshold`)."""
    answer_rule: str = AUTO
    """The rule that compares answers, as `finetune.answer_rule` names it."""
    metrics: tuple[str, ...] = ()
    """The chosen metrics; the first selects the best checkpoint; empty: the usual one."""

    per_token = True

    @property
    def metric_scale(self) -> Scale:
        """The scale of the metrics: percent, as SQuAD's scripts print them."""
        return Scale.PERCENT

    @property
    def metric(self) -> str:
        """The chosen metric; without one `f1`, or for version 2 `best_f1`.

        `best_f1` is the F1 at the best threshold, which a finished run has.
        """
        if self.metrics:
            return self.metrics[0]
        return "best_f1" if self.version_2 else "f1"

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """Return a new linear layer with two outputs for each token: start and end of an answer."""
        return init_linear(config, key, 2)

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
        """Return the logits of start and end, float32 [B, L, 2]."""
        head = head_of(params, self.name)
        # run_squad.py of the original BERT has no dropout before this head.
        return token_logits(
            config, params, head, hidden_BxLxD, key=key, layout=layout, dropout=False
        )

    def count(self, batch: Batch) -> Array:
        """Return the sum of the weights of the items whose answer is known, a float32 scalar."""
        return jnp.sum(_weights(batch))

    def sums(self, logits: Array, batch: Batch) -> dict[str, Array]:
        """Return `loss`, `count` and `span_accuracy`.

        The loss is the mean of the cross-entropies of start and end over the row's own ids.
        `span_accuracy` is the total weight of rows whose most probable start and end are right.

        `batch["start_positions"]` and `["end_positions"]` are int32 [B]. A row of weight 0 does not
        change the sums, whatever its positions are, and neither does a row whose positions are
        `UNKNOWN`.
        """
        weights = _weights(batch)
        is_own_BxLx1 = jnp.asarray(batch["input_mask"])[:, :, None] > 0
        # A difference from run_squad.py, whose softmax has the padding too: the loss must not
        # depend on the length that a batch is padded to.
        logits = jnp.where(is_own_BxLx1, logits.astype(jnp.float32), MASKED)
        positions = jnp.stack([batch["start_positions"], batch["end_positions"]], axis=-1)
        true = jax.nn.one_hot(positions, logits.shape[1], axis=1, dtype=jnp.float32)
        true_logits = jnp.sum(true * logits, axis=1)
        losses = jnp.mean(jax.nn.logsumexp(logits, axis=1) - true_logits, axis=-1)
        right = jnp.all(jnp.argmax(logits, axis=1) == positions, axis=-1).astype(jnp.float32)
        return {
            "loss": weighted_sum(losses, weights),
            "span_accuracy": jnp.sum(right * weights),
            "count": jnp.sum(weights),
        }

    def soft_losses(self, logits: Array, taught: Array, batch: Batch, temperature: float) -> Array:
        """Return the mean of the losses of start and end for each row, [B]."""
        is_own_BxLx1 = jnp.asarray(batch["input_mask"])[:, :, None] > 0
        own = jnp.where(is_own_BxLx1, logits.astype(jnp.float32), MASKED)
        taught = jnp.where(is_own_BxLx1, taught.astype(jnp.float32), MASKED)
        return jnp.mean(soft_losses(own, taught, temperature, axis=1), axis=-1)

    def encode(
        self,
        examples: Sequence[QuestionExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> EncodedQuestions:
        """Return a row for each window of each question's paragraph, by `encode_questions`.

        Raises `UserError`, which names the question, if `max_seq_length` is too short for a
        question. With `targets` it is also raised for a question whose answers are not known, or
        for one without an answer unless `version_2` is set.
        """
        if targets and not self.version_2:
            _check_answered(self.name, examples)
        return encode_questions(
            examples,
            tokenizer,
            max_seq_length=max_seq_length,
            doc_stride=self.doc_stride,
            max_query_length=self.max_query_length,
            targets=targets,
            name=self.name,
        )

    def predict(
        self,
        outputs: Sequence[np.ndarray],
        encoded: EncodedExamples,
        examples: Sequence[QuestionExample],
    ) -> list[SpanPrediction]:
        """Return the answers, chosen by `bertjax.tasks.question_answering.answers`.

        `encoded` is the result of `encode`.
        """
        if not isinstance(encoded, EncodedQuestions):
            raise TypeError(f"questions are encoded as EncodedQuestions, not {type(encoded)}")
        return predictions(
            outputs,
            encoded,
            examples,
            version_2=self.version_2,
            max_answer_length=self.max_answer_length,
            n_best_size=self.n_best_size,
            null_threshold=self.null_threshold,
        )

    def figures(
        self, predictions: Sequence[SpanPrediction], examples: Sequence[QuestionExample]
    ) -> dict[str, float]:
        """Return `exact_match` and `f1` in percent; for version 2 all of `squad_metrics.figures_2`.

        The figures equal those of the official script for the same answers and odds: the script
        that `rules` has for the questions. Figures with a name `best_...` are computed from each
        question's best text, even if the current threshold replaced it by "no answer". Raises
        `UserError` for a question without an answer if `version_2` is not set.
        """
        texts = [prediction.text for prediction in predictions]
        right = answer_texts(self.name, examples)
        rules = self.rules(examples)
        if not self.version_2:
            _check_answered(self.name, examples)
            return squad_metrics.figures_1(texts, right, rules)
        odds = [prediction.null_odds for prediction in predictions]
        figures = squad_metrics.figures_2(texts, right, odds, rules)
        best_texts = [prediction.best_text for prediction in predictions]
        for name, value in squad_metrics.figures_2(best_texts, right, odds, rules).items():
            if name.startswith("best_"):
                figures[name] = value
        return figures

    def rules(self, examples: Sequence[QuestionExample]) -> list[AnswerRule]:
        """Return the rule that compares the answers to each question.

        It is the one of `answer_rule` or of the task's name; or else the paragraphs and the right
        answers decide, so that a set in several languages is compared by the rule of each.
        """
        rule = named_rule(self.answer_rule, self.name)
        if rule is None:
            answers = [[text for text, _ in example.answers or ()] for example in examples]
            return rules_of_texts([example.context for example in examples], answers)
        return [rule] * len(examples)


def _weights(batch: Batch) -> Array:
    """Return the weights of the items, float32 [B]; 0 for an item whose answer is not known."""
    is_known = jnp.asarray(batch["start_positions"]) != UNKNOWN
    return jnp.asarray(batch["item_weights"]).astype(jnp.float32) * is_known


def _check_answered(name: str, examples: Iterable[QuestionExample]) -> None:
    for example in examples:
        check(
            example.answers,
            where=f"{name}: question {example.id}",
            found="no answer",
            expected="one, or finetune.unanswerable",
        )


def answer_texts(name: str, examples: Iterable[QuestionExample]) -> list[list[str]]:
    """Return the right answers to each question; `UserError` if they are not known."""
    texts = []
    for example in examples:
        check(
            example.answers is not None,
            where=f"{name}: question {example.id}",
            found="answers not known",
            expected="known ones",
        )
        texts.append([text for text, _ in example.answers or ()])
    return texts


def choose_threshold(
    predictions: Sequence[SpanPrediction],
    examples: Sequence[QuestionExample],
    rules: Sequence[AnswerRule],
) -> float:
    """Return the `null_threshold` with the best F1 on `examples`, by the official script's search.

    The answers must be known. The search uses each question's best text, even if an earlier
    threshold replaced it by "no answer". If "no answer" to all questions is best, the threshold is
    below all odds. (The script returns 0 in this case, because it expects probabilities.)

    It lies half-way between the odds of two questions, not at those of one as the script's: on
    another machine, that question's odds may differ in their last bit.
    """
    texts = [prediction.best_text for prediction in predictions]
    right = answer_texts("the null threshold", examples)
    odds = [prediction.null_odds for prediction in predictions]
    scores = [answer_f1(*question) for question in zip(texts, right, rules, strict=True)]
    best, threshold = squad_metrics.best_threshold(scores, texts, right, odds)
    # "No answer" to all gives F1 1 for each question without an answer, and 0 for the others.
    unanswerable = sum(not answers for answers in right)
    if best > 100.0 * unanswerable / len(right):
        larger = [value for value in odds if value > threshold]
        return (threshold + min(larger)) / 2 if larger else threshold + ODDS_MARGIN
    return min(odds) - ODDS_MARGIN


def answer_f1(text: str, answers: Sequence[str], rule: AnswerRule) -> float:
    """Return the F1 of an answer (0 to 1) by the rule of version 2.0.

    If there are no right answers, an empty text is right.
    """
    return squad_metrics.question_scores(text, answers, version_2=True, rule=rule)[1]
