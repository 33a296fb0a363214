"""Sequence to sequence: generation of a target text from a source text, as in translation."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.storage import write_lines
from bertjax.tasks.error_tables import Mistake
from bertjax.tasks.examples import PairExample
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.kind import (
    AUTO,
    BLEU_TOKENIZER,
    DECODER_FROM,
    ENCODING,
    LABEL_SMOOTHING,
    Entry,
    Kind,
    PredictedSplit,
)
from bertjax.tasks.metric_table import Metric
from bertjax.tasks.seq2seq.pairs import read_pairs
from bertjax.tasks.seq2seq.task import Seq2Seq, make_task
from bertjax.tasks.seq2seq.text_metrics import (
    ALL_METRICS,
    is_equal,
    metrics_of,
    tokenizer_for,
)
from bertjax.tasks.text_lines import Form


class Seq2SeqKind(Kind[Seq2Seq, PairExample, str]):
    """Generation of a text for each source, by a decoder that attends to the encoder."""

    name = "seq2seq"
    task_classes = (Seq2Seq,)
    # Where a run has both, the metric that ignores case selects its checkpoint.
    metrics = tuple(
        metric.name
        for metric in sorted(ALL_METRICS, key=lambda metric: not metric.lowercase)
        if metric.tokenizer is not None
    )
    choosable = tuple(metric.listed for metric in ALL_METRICS)
    heads = ()  # no pooler: the decoder attends to all hidden states
    # The decoder starts as a copy of the encoder, and its output layer as a copy of the masked-word
    # head.
    optional_heads = ("mlm",)
    newer_fields = Kind.newer_fields | {"bleu_tokenizer"}

    def used_options(self, entry: Entry, options: FinetuneConfig) -> frozenset[str]:
        """Return the options of loss, BLEU, the decoder's initial parameters and the files."""
        return frozenset({LABEL_SMOOTHING, DECODER_FROM, BLEU_TOKENIZER, ENCODING})

    def read_split(
        self, entry: Entry, split: str, options: FinetuneConfig, labelled: bool
    ) -> list[PairExample]:
        """Return the pairs of a split, as `read_pairs` reads them."""
        columns = options.text_columns or ("source", "target")
        check(
            len(columns) == 2,
            where="finetune.text_columns",
            found=columns,
            expected="two, of the source and of the target",
        )
        texts = columns[0], columns[1]
        return read_pairs(entry.location, split, targets=labelled, texts=texts)

    def make_task(
        self,
        name: str,
        examples: Sequence[PairExample],
        options: FinetuneConfig,
        tokenizer: Tokenizer,
    ) -> Seq2Seq:
        """Return the task for this tokenizer and for the script of the targets."""
        bleu_tokenizer: str = options.bleu_tokenizer
        if bleu_tokenizer == AUTO:
            bleu_tokenizer = tokenizer_for([example.target or "" for example in examples])
        return make_task(
            name,
            tokenizer,
            max_target_length=options.max_target_length,
            beam_size=options.beam_size,
            label_smoothing=options.label_smoothing,
            bleu_tokenizer=bleu_tokenizer,
        )

    def task_metrics(self, task: Seq2Seq) -> tuple[Metric, ...]:
        """Return BLEU with the task's words and exact match, each with and without case."""
        return tuple(metric.listed for metric in metrics_of(task.bleu_tokenizer))

    def for_evaluation(self, task: Seq2Seq, options: FinetuneConfig) -> Seq2Seq:
        """Return the task with the words of BLEU that the option names, if it names any.

        Then metrics that were chosen before, by names with other words, count no more.
        """
        if options.bleu_tokenizer in (AUTO, task.bleu_tokenizer):
            return task
        return dataclasses.replace(task, bleu_tokenizer=options.bleu_tokenizer, metrics=())

    def signatures(self, task: Seq2Seq, examples: Sequence[PairExample]) -> dict[str, str]:
        """Return sacrebleu's signature of BLEU, and whether exact match ignores case."""
        return {metric.name: metric.signature for metric in task.text_metrics}

    def mistakes(
        self, task: Seq2Seq, predictions: Sequence[str], examples: Sequence[PairExample]
    ) -> Iterator[Mistake]:
        """Yield the texts whose words differ from the target's; all have the same severity.

        Case does not count if the tokenizer cannot produce upper case.
        """
        for predicted, example in zip(predictions, examples, strict=True):
            target = example.target or ""
            if not is_equal(predicted, target, lowercase=task.lowercase):
                yield Mistake(0.0, example.source, target, predicted)

    def shown_answer(self, prediction: str) -> str:
        """Return the text."""
        return prediction or "an empty text"

    def write_predictions(
        self,
        folder: epath.Path,
        predicted: PredictedSplit[PairExample, str],
        options: FinetuneConfig,
    ) -> list[epath.Path]:
        """Write `TASK-SPLIT.txt` with a text a line; line ends within a text become spaces."""
        lines = [_on_one_line(text) for text in predicted.predictions]
        return [write_lines(folder / predicted.file_name("txt"), lines)]

    def line_forms(
        self, task: Seq2Seq, location: DataLocation, options: FinetuneConfig
    ) -> tuple[Form, ...]:
        """Return one column, the source."""
        return (("source",),)

    def example_of(self, identifier: str, columns: Sequence[str]) -> PairExample:
        """Return the source."""
        return PairExample(identifier, columns[0])

    def answer_cells(self, prediction: str, options: FinetuneConfig) -> list[str]:
        """Return the text on one line."""
        return [_on_one_line(prediction)]

    def answer_fields(self, task: Seq2Seq, prediction: str) -> dict[str, Any]:
        """Return the text."""
        return {"prediction": prediction}


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
