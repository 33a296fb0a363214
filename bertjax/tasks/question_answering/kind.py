"""Question answering: each answer is a span of a paragraph, as in SQuAD."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, mismatch
from bertjax.number_text import number_text
from bertjax.tasks.error_tables import Mistake
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.files.row import listed
from bertjax.tasks.files.splits import DataLocation, find_files
from bertjax.tasks.kind import (
    ANSWER_RULE,
    AUTO,
    ENCODING,
    UNANSWERABLE,
    Entry,
    Kind,
    PredictedSplit,
)
from bertjax.tasks.metric_table import Metric, Scale
from bertjax.tasks.question_answering import prediction_files, squad
from bertjax.tasks.question_answering.answer_rules import MLQA, described, is_mlqa, named_rule
from bertjax.tasks.question_answering.answers import SpanPrediction
from bertjax.tasks.question_answering.task import Spans, answer_f1, answer_texts, choose_threshold
from bertjax.tasks.task_head import TaskHead
from bertjax.tasks.text_lines import Form, one_line_cell

VERSION_2 = ("squad_v2", "squad2", "squad_v2.0")
"""Names of tasks that always count as version 2, which has questions without an answer."""
METRICS = ("f1", "exact_match")
METRICS_2 = ("best_f1", "best_exact")
"""Metrics of version 2 in addition: those at the best threshold."""


class SpansKind(Kind[Spans, QuestionExample, SpanPrediction]):
    """Prediction of a span of a paragraph for each question; in SQuAD 2.0 also of "no answer"."""

    name = "spans"
    task_classes = (Spans,)
    metrics = ("best_f1", "f1")
    choosable = tuple(Metric(name, Scale.PERCENT) for name in METRICS + METRICS_2)
    data_sets = ("squad", "squad_v2", "xquad", "cmrc2018", "drcd", "mlqa", "korquad")
    heads = ()  # no pooler: each token's hidden state is a start or an end
    in_percent = True  # as SQuAD's scripts print them
    newer_fields = Kind.newer_fields | {"answer_rule"}

    def knows(self, name: str) -> bool:
        """Return whether the name is one of `data_sets`, or MLQA's in a language, as `mlqa_de`."""
        return super().knows(name) or is_mlqa(name)

    def used_options(self, entry: Entry, options: FinetuneConfig) -> frozenset[str]:
        """Return the options of the comparison of answers and of the files."""
        return frozenset({ANSWER_RULE, UNANSWERABLE, ENCODING})

    def check_options(self, entry: Entry, options: FinetuneConfig) -> None:
        """Raise `UserError` also for MLQA in a language that is not named."""
        super().check_options(entry, options)
        check(
            not is_mlqa(entry.name) or named_rule(options.answer_rule, entry.name) is not None,
            where="finetune.tasks",
            found=entry.name,
            expected=f"the language of the answers, as {', '.join(map('mlqa_{}'.format, MLQA))};"
            " or finetune.answer_rule",
        )

    def for_evaluation(self, task: Spans, options: FinetuneConfig) -> Spans:
        """Return the task with the rule that an option names, and of version 2 if one says so."""
        if options.unanswerable:
            task = dataclasses.replace(task, version_2=True)
        if options.answer_rule == AUTO:
            return task
        return dataclasses.replace(task, answer_rule=options.answer_rule)

    def check_split(
        self, entry: Entry, split: str, task: Spans, examples: Sequence[QuestionExample]
    ) -> None:
        """Raise `UserError` for a question without an answer, if the task has version 1."""
        if task.version_2:
            return
        without = [example.id for example in examples if example.answers == ()]
        if without:
            has_files = entry.location.has_files
            files = find_files(entry.location, split) if has_files else [entry.location.path]
            raise mismatch(
                where=f"{listed(files)}: question {without[0]}",
                found=f"no answer ({len(without)} of {len(examples)} questions have none)",
                expected="one, as all training questions have; or finetune.unanswerable,"
                " to count these as in SQuAD 2.0",
            )

    def signatures(self, task: Spans, examples: Sequence[QuestionExample]) -> dict[str, str]:
        """Return the rule by which exact match and F1 compare answers."""
        rule = described(task.rules(examples))
        return {"exact_match": rule, "f1": rule}

    def read_split(
        self, entry: Entry, split: str, options: FinetuneConfig, labelled: bool
    ) -> list[QuestionExample]:
        """Return the questions of a split, from its files or from TFDS.

        To be predicted, they must have different ids in all files of the split, because a file of
        predictions has the answer to each id.
        """
        is_training = split == "train"
        if entry.location.is_tfds:
            chosen = entry.location.tfds_split(split)
            return squad.read_tfds(entry.location.path, chosen, training=is_training)
        examples = []
        place_of_id: dict[str, str] = {}
        for path in find_files(entry.location, split):
            if labelled:
                # The languages of XQuAD have the same ids, and figures do not need them.
                place_of_id = {}
            examples += squad.read_questions(
                path,
                training=is_training,
                place_of_id=place_of_id,
                encoding=entry.location.encoding,
            )
        return examples

    def make_task(
        self,
        name: str,
        examples: Sequence[QuestionExample],
        options: FinetuneConfig,
        tokenizer: Tokenizer,
    ) -> Spans:
        """Return the task.

        It has version 2 if a training question has no answer, or if the option or its name says so.
        """
        # () means that there is no answer, None that the answers are not known.
        has_unanswerable = any(example.answers == () for example in examples)
        return Spans(
            name,
            version_2=has_unanswerable or options.unanswerable or name.lower() in VERSION_2,
            doc_stride=options.doc_stride,
            max_query_length=options.max_query_length,
            max_answer_length=options.max_answer_length,
            n_best_size=options.n_best_size,
            answer_rule=options.answer_rule,
        )

    def task_metrics(self, task: Spans) -> tuple[Metric, ...]:
        """Return `f1` and `exact_match`, for version 2 also those at the best threshold."""
        return self.choosable if task.version_2 else self.choosable[: len(METRICS)]

    def majority_baseline(self, task: Spans, examples: Sequence[QuestionExample]) -> float:
        """Return the share of questions without an answer; 0 for version 1."""
        if not task.version_2:
            return 0.0
        return sum(not example.answers for example in examples) / len(examples)

    def choose_threshold(
        self,
        task: Spans,
        predictions: Sequence[SpanPrediction],
        examples: Sequence[QuestionExample],
    ) -> float | None:
        """Return the best `null_threshold` for version 2, found by `task.choose_threshold`."""
        if not task.version_2:
            return None
        return choose_threshold(predictions, examples, task.rules(examples))

    def with_threshold(self, task: Spans, threshold: float) -> Spans:
        """Return the task with this `null_threshold`."""
        return dataclasses.replace(task, null_threshold=threshold)

    def mistakes(
        self,
        task: Spans,
        predictions: Sequence[SpanPrediction],
        examples: Sequence[QuestionExample],
    ) -> Iterator[Mistake]:
        """Yield the answers without any right word: those with F1 0 by the rule of version 2.0.

        The severity is the probability of the answer.
        """
        right = answer_texts("the worst errors", examples)
        rules = task.rules(examples)
        for prediction, example, answers, rule in zip(
            predictions, examples, right, rules, strict=True
        ):
            if not answer_f1(prediction.text, answers, rule):
                yield Mistake(
                    prediction.probability,
                    f"{example.question}  ({example.context})",
                    " | ".join(dict.fromkeys(answers)) or "no answer",
                    prediction.text,
                )

    def shown_answer(self, prediction: SpanPrediction) -> str:
        """Return the text of the answer."""
        return prediction.text or "no answer"

    def write_predictions(
        self,
        folder: epath.Path,
        predicted: PredictedSplit[QuestionExample, SpanPrediction],
        options: FinetuneConfig,
    ) -> list[epath.Path]:
        """Write `TASK-SPLIT.json`, which SQuAD's scripts read, and two more files.

        `TASK-SPLIT-n_best.json` has the best answers to each question, `TASK-SPLIT-null_odds.json`
        the odds of "no answer".
        """
        writers = {
            "": prediction_files.write_predictions,
            "n_best": prediction_files.write_n_best,
            "null_odds": prediction_files.write_null_odds,
        }
        paths = []
        for part, write in writers.items():
            path = folder / predicted.file_name("json", part)
            write(path, predicted.examples, predicted.predictions)
            paths.append(path)
        return paths

    def line_forms(
        self, task: Spans, location: DataLocation, options: FinetuneConfig
    ) -> tuple[Form, ...]:
        """Return two columns: the question, and the paragraph with the answer."""
        return (("question", "context"),)

    def example_of(self, identifier: str, columns: Sequence[str]) -> QuestionExample:
        """Return the question on the paragraph."""
        question, context = columns
        return QuestionExample(identifier, question, context)

    def answer_cells(self, prediction: SpanPrediction, options: FinetuneConfig) -> list[str]:
        """Return the answer, empty for "no answer", and its probability."""
        probability = number_text(prediction.probability, ".4f")
        return [one_line_cell(prediction.text), probability]

    def answer_fields(self, task: Spans, prediction: SpanPrediction) -> dict[str, Any]:
        """Return the answer, its probability, and the odds of "no answer"."""
        return {
            "prediction": prediction.text,
            "probability": float(prediction.probability),
            "null_odds": float(prediction.null_odds),
        }

    def task_head(self, task: Spans) -> TaskHead:
        """Return the description of the head, which gives every token a start and an end logit."""
        return TaskHead(task.name, self.name, ("start", "end"), "QuestionAnswering", on_tokens=True)
