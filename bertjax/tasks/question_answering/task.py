"""Questions on a paragraph, answered by a span of it (section 4.2 and 4.3 of arXiv 1810.04805)."""

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
from bertjax.model.layout import Layout
from bertjax.model.linear_head import init_linear
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.linear_head import head_of, token_logits
from bertjax.tasks.question_answering import squad_metrics
from bertjax.tasks.question_answering.answers import SpanPrediction, predictions
from bertjax.tasks.question_answering.windows import EncodedQuestions, encode_questions
from bertjax.tasks.task import EncodedExamples, LinearHeadTask
from bertjax.types import Batch

# In place of the logits of padding. Finite, so that a row of padding alone has a finite loss too.
MASKED = -1e30


@dataclass(frozen=True)
class Spans(LinearHeadTask):
    """A task whose answers are spans of a paragraph."""

    name: str
    version_2: bool = False
    """True if questions may have no answer (SQuAD 2.0)."""
    # The defaults of these four and of the threshold are those of run_squad.py's flags.
    doc_stride: int = 128
    """Pieces from the beginning of one window to that of the next; at most the window's own."""
    max_query_length: int = 64
    """Pieces of a question that are kept."""
    max_answer_length: int = 30
    """Pieces of the longest answer."""
    n_best_size: int = 20
    """Starts and ends that are paired in a window, and answers that are kept of a question."""
    null_threshold: float = 0.0
    """Odds of no answer, in logits, above which none is given; `choose_threshold` finds it."""

    percent = True
    per_token = True

    @property
    def metric(self) -> str:
        """`f1`; for version 2 the F1 at the best threshold, which the finished run uses."""
        return "best_f1" if self.version_2 else "f1"

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """Return a new linear layer with two outputs for each token: start and end of an answer."""
        return init_linear(config, key, 2)

    def logits(
        self,
        config: ModelConfig,
        params: Params,
        batch: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """Return the logits of start and end, float32 [B, L, 2]."""
        head = head_of(params, self.name)
        # run_squad.py of the original BERT has no dropout before this head.
        return token_logits(config, params, head, batch, key=key, layout=layout, dropout=False)

    def sums(self, logits: Array, batch: Batch) -> dict[str, Array]:
        """Return `loss`, `count` and `span_accuracy`.

        The loss is the mean of the cross-entropies of start and end over the row's own ids.
        `span_accuracy` is the weight of the rows whose most probable start and end are both right.

        `batch["start_positions"]` and `["end_positions"]` are int32 [B]. A row of weight 0 adds
        nothing whatever they are.
        """
        weights = batch["item_weights"].astype(jnp.float32)
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
            "loss": jnp.sum(jnp.where(weights > 0, losses, 0) * weights),
            "span_accuracy": jnp.sum(right * weights),
            "count": jnp.sum(weights),
        }

    def encode(
        self,
        examples: Sequence[QuestionExample],
        tokenizer: Tokenizer,
        max_seq_length: int,
        *,
        targets: bool,
    ) -> EncodedQuestions:
        """Return a row for each window of a question's paragraph, as `encode_questions` makes them.

        Raises `UserError` naming the question for which `max_seq_length` is too short, and with
        `targets` the one whose answers are not known, or that has none though `version_2` is not
        set.
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
        """Return the answers, as `bertjax.tasks.question_answering.answers` chooses them.

        `encoded` is what `encode` returned.
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

        They are what the official script gives for the same answers and odds. Those that begin with
        `best_` are what it gives for each question's best text, which a lower or higher threshold
        would have left. Raises `UserError` for a question without an answer if `version_2` is not
        set.
        """
        texts = [prediction.text for prediction in predictions]
        right = answer_texts(self.name, examples)
        if not self.version_2:
            _check_answered(self.name, examples)
            return squad_metrics.figures_1(texts, right)
        odds = [prediction.null_odds for prediction in predictions]
        figures = squad_metrics.figures_2(texts, right, odds)
        best_texts = [prediction.best_text for prediction in predictions]
        for name, value in squad_metrics.figures_2(best_texts, right, odds).items():
            if name.startswith("best_"):
                figures[name] = value
        return figures


def _check_answered(name: str, examples: Iterable[QuestionExample]) -> None:
    for example in examples:
        check(
            example.answers,
            where=f"{name}: question {example.id}",
            found="no answer",
            expected="one, or version 2 of the task",
        )


def answer_texts(name: str, examples: Iterable[QuestionExample]) -> list[list[str]]:
    """Return the right answers of each question; `UserError` naming one whose are not known."""
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
    predictions: Sequence[SpanPrediction], examples: Sequence[QuestionExample]
) -> float:
    """Return the `null_threshold` of the best F1 on `examples`, by the official script's search.

    The answers must be known. It is searched with each question's best text, not with the texts
    that an earlier threshold left. If it is best to answer nothing, it is below all odds (the
    script gives 0 then, as it expects probabilities).
    """
    texts = [prediction.best_text for prediction in predictions]
    right = answer_texts("the null threshold", examples)
    odds = [prediction.null_odds for prediction in predictions]
    scores = [answer_f1(text, answers) for text, answers in zip(texts, right, strict=True)]
    best, threshold = squad_metrics.best_threshold(scores, texts, right, odds)
    # Answering nothing gives F1 1 for each question without an answer, 0 for the others.
    unanswerable = sum(not answers for answers in right)
    if best > 100.0 * unanswerable / len(right):
        return threshold
    # Just below: a question is left without an answer if its odds are above the threshold.
    return float(np.nextafter(min(odds), -np.inf))


def answer_f1(text: str, answers: Sequence[str]) -> float:
    """Return the F1 of an answer in 0..1 by version 2.0's rule.

    If there are no right answers, an empty text is right.
    """
    return squad_metrics.question_scores(text, answers, version_2=True)[1]
