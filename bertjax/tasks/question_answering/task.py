"""Questions on a paragraph, answered by a span of it (section 4.2 and 4.3 of arXiv 1810.04805)."""

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
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.linear_head import head_of, token_scores
from bertjax.tasks.question_answering import squad_metrics as squad_scores
from bertjax.tasks.question_answering.answers import SpanPrediction, predictions
from bertjax.tasks.question_answering.windows import SpanRows, span_rows
from bertjax.tasks.task import Linear, Rows
from bertjax.types import Batch

MASKED = -1e30  # in place of the logits of padding: finite, so that a row of nothing has a loss too


@dataclass(frozen=True)
class Spans(Linear):
    """A task whose answers are spans of a paragraph; as `Task` says, what is not in the methods'
    own words.
    """

    name: str
    version_2: bool = False
    """Whether questions may have no answer (SQuAD 2.0)."""
    doc_stride: int = 128
    """Pieces from the beginning of one window of a paragraph to that of the next; no more than a
    window has.
    """
    max_query_length: int = 64
    """Pieces of a question that are kept."""
    max_answer_length: int = 30
    """Pieces of the longest answer."""
    n_best_size: int = 20
    """Starts and ends that are paired in a window, and answers that are kept of a question."""
    null_threshold: float = 0.0
    """Odds above which there is no answer, in logits; `choose_threshold` finds it."""

    percent = True
    per_token = True

    @property
    def metric(self) -> str:
        """Of version 2 the F1 at the best threshold, which is the one that is kept in the end."""
        return "best_f1" if self.version_2 else "f1"

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """One linear layer to two numbers of each token: how well an answer starts there, and ends
        there.
        """
        return init_linear(config, key, 2)

    def scores(
        self,
        config: ModelConfig,
        params: Params,
        batch: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """[B, L, 2] float32 logits of start and end; no dropout before the head, as in the original
        BERT.
        """
        head = head_of(params, self.name)
        return token_scores(config, params, head, batch, key=key, layout=layout, dropout=False)

    def sums(self, scores: Array, batch: Batch) -> dict[str, Array]:
        """`loss`, the mean of the cross-entropies of start and end over the row's own ids;
        `span_accuracy`, the weight of the rows whose likeliest start and end are both the right
        ones; `count`.

        `batch["start_positions"]` and `["end_positions"]` [B] int32; a row of weight 0 adds nothing
        whatever they are.
        """
        weights = batch["item_weights"].astype(jnp.float32)
        own = jnp.asarray(batch["input_mask"])[:, :, None] > 0
        logits = jnp.where(own, scores.astype(jnp.float32), MASKED)
        positions = jnp.stack([batch["start_positions"], batch["end_positions"]], axis=-1)
        true = jax.nn.one_hot(positions, logits.shape[1], axis=1, dtype=jnp.float32)
        picked = jnp.sum(true * logits, axis=1)
        losses = jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked, axis=-1)
        right = jnp.all(jnp.argmax(logits, axis=1) == positions, axis=-1).astype(jnp.float32)
        return {
            "loss": jnp.sum(jnp.where(weights > 0, losses, 0) * weights),
            "span_accuracy": jnp.sum(right * weights),
            "count": jnp.sum(weights),
        }

    def rows(
        self,
        examples: Sequence[QuestionExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> SpanRows:
        """As `span_rows`: a row for each window of a question's paragraph, overlapping by the
        stride.

        Raises `UserError` naming the question for which `max_seq_length` is too short, and with
        `targets` the one that has no answers, or none though `version_2` is not set.
        """
        if targets and not self.version_2:
            _check_answered(self.name, examples)
        return span_rows(
            examples,
            tokenizer,
            max_seq_length=max_seq_length,
            doc_stride=self.doc_stride,
            max_query_length=self.max_query_length,
            targets=targets,
            name=self.name,
        )

    def predict(
        self, outputs: Sequence[np.ndarray], rows: Rows, examples: Sequence[QuestionExample]
    ) -> list[SpanPrediction]:
        """The answers, as `span_answers.predictions` chooses them; `rows` are those of `rows`."""
        if not isinstance(rows, SpanRows):
            raise TypeError(f"the rows of questions are SpanRows, not {type(rows).__name__}")
        return predictions(
            outputs,
            rows,
            examples,
            version_2=self.version_2,
            max_answer_length=self.max_answer_length,
            n_best_size=self.n_best_size,
            null_threshold=self.null_threshold,
        )

    def figures(
        self, predictions: Sequence[SpanPrediction], examples: Sequence[QuestionExample]
    ) -> dict[str, float]:
        """`exact_match` and `f1` in percent, and of version 2 those of `squad_scores.figures_2`.

        They are what the official script says of the same answers and odds; `best_…` what it says
        of each question's best text, which a lower or higher threshold would have left. Raises
        `UserError` for a question without an answer where `version_2` is not set.
        """
        texts, right = [p.text for p in predictions], _answers(self.name, examples)
        if self.version_2:
            odds = [p.null_odds for p in predictions]
            best = squad_scores.figures_2([p.best_text for p in predictions], right, odds)
            found = squad_scores.figures_2(texts, right, odds)
            return found | {name: value for name, value in best.items() if name.startswith("best_")}
        _check_answered(self.name, examples)
        return squad_scores.figures_1(texts, right)


def _check_answered(name: str, examples: Sequence[QuestionExample]) -> None:
    for example in examples:
        check(
            example.answers,
            where=f"{name}: question {example.id}",
            found="no answer",
            expected="one, or version 2 of the task",
        )


def _answers(name: str, examples: Sequence[QuestionExample]) -> list[list[str]]:
    for example in examples:
        check(
            example.answers is not None,
            where=f"{name}: question {example.id}",
            found="answers not known",
            expected="known ones",
        )
    return [[text for text, _ in example.answers or ()] for example in examples]


def choose_threshold(
    predictions: Sequence[SpanPrediction], examples: Sequence[QuestionExample]
) -> float:
    """The `null_threshold` of the best F1 on `examples`, whose answers are known; by the official
    script's search.

    It is of each question's best text, not of those texts that an earlier threshold left over.
    Where it is best to answer nothing it is below all odds (the script says 0, for it expects
    probabilities).
    """
    texts, right = [p.best_text for p in predictions], _answers("the null threshold", examples)
    odds = [p.null_odds for p in predictions]
    scores = [_f1(text, answers) for text, answers in zip(texts, right, strict=True)]
    best, threshold = squad_scores.best_threshold(scores, texts, right, odds)
    nothing = 100.0 * sum(not answers for answers in right) / len(right)
    return threshold if best > nothing else float(np.nextafter(min(odds), -np.inf))


class SpanError(NamedTuple):
    """A question that was answered wrongly."""

    example: QuestionExample
    text: str
    """The wrong answer."""
    probability: float


def worst_errors(
    predictions: Sequence[SpanPrediction], examples: Sequence[QuestionExample], number: int
) -> list[SpanError]:
    """At most `number` questions whose answer has no word right (F1 0 by version 2.0's rule), the
    surest first.
    """
    scored = zip(predictions, examples, _answers("the worst errors", examples), strict=True)
    wrong = [
        SpanError(e, p.text, p.probability) for p, e, right in scored if not _f1(p.text, right)
    ]
    return sorted(wrong, key=lambda error: -error.probability)[:number]


def _f1(text: str, answers: Sequence[str]) -> float:
    return squad_scores.question_scores(text, answers, version_2=True)[1]
