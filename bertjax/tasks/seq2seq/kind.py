"""Sequence to sequence: generation of a target text from a source text, as in translation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.storage import write_lines
from bertjax.tasks.error_tables import Mistake
from bertjax.tasks.examples import PairExample
from bertjax.tasks.kind import (
    DECODER_FROM,
    ENCODING,
    LABEL_SMOOTHING,
    Entry,
    Kind,
    PredictedSplit,
    with_tuples,
)
from bertjax.tasks.metric_table import Metric, Scale
from bertjax.tasks.seq2seq.decode import Search
from bertjax.tasks.seq2seq.pairs import read_pairs
from bertjax.tasks.seq2seq.task import Seq2Seq, make_task


class Seq2SeqKind(Kind[Seq2Seq, PairExample, str]):
    """Generation of a text for each source, by a decoder that attends to the encoder."""

    name = "seq2seq"
    task_classes = (Seq2Seq,)
    metrics = ("bleu",)
    choosable = (Metric("bleu", Scale.POINTS), Metric("exact_match"))
    heads = ()  # no pooler: the decoder attends to all hidden states
    # The decoder starts as a copy of the encoder, and its output layer as a copy of the masked-word
    # head.
    optional_heads = ("mlm",)

    def used_options(self, entry: Entry, options: FinetuneConfig) -> frozenset[str]:
        """Return the options of the loss, of the decoder's initial parameters and of the files."""
        return frozenset({LABEL_SMOOTHING, DECODER_FROM, ENCODING})

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
        """Return the task for this tokenizer."""
        return make_task(
            name,
            tokenizer,
            max_target_length=options.max_target_length,
            beam_size=options.beam_size,
            label_smoothing=options.label_smoothing,
        )

    def from_dict(self, values: Mapping[str, Any]) -> Seq2Seq:
        """Return the task from values of `to_dict`; `values["search"]` has the search's fields."""
        search = Search(**values["search"])
        return Seq2Seq(**{**with_tuples(values), "search": search})

    def mistakes(
        self, task: Seq2Seq, predictions: Sequence[str], examples: Sequence[PairExample]
    ) -> Iterator[Mistake]:
        """Yield the texts whose words differ from the target's; all have the same severity."""
        for predicted, example in zip(predictions, examples, strict=True):
            target = example.target or ""
            if predicted.split() != target.split():
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
        lines = [" ".join(text.split()) for text in predicted.predictions]
        return [write_lines(folder / f"{predicted.stem}.txt", lines)]
