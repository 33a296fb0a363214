"""Fine-tuning: the tasks, their data, and what helps where data is scarce."""

from dataclasses import dataclass
from typing import Literal

from bertjax.config.range_checks import fraction, positive
from bertjax.errors import check


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Tasks that an encoder is fine-tuned on, as in section 4 of arXiv 1810.04805; none: the run is
    pretraining.
    """

    tasks: tuple[str, ...] = ()
    """NAME=PLACE each, with a name of GLUE's and the like (rte=data/RTE), or NAME:KIND=PLACE with a
    kind of task: classification, tagging, spans, choice or seq2seq. PLACE is a folder,
    tfds:NAME[/CONFIG], or python-docs: which package of the standard library a docstring is
    from, a task that needs no download.
    """
    train_files: tuple[str, ...] = ()
    """Files of the training set within PLACE, where they are not called train.*; of one task only."""
    validation_files: tuple[str, ...] = ()
    """The same for the validation set (validation.* or dev.*)."""
    test_files: tuple[str, ...] = ()
    """The same for the test set (test.*)."""
    columns: tuple[str, ...] = ()
    """Names of the columns of tables that have no header line."""
    text_columns: tuple[str, ...] = ()
    """Columns of the text, or of the two texts of a pair; by default sentence, or sentence1 and
    sentence2.
    """
    label_column: str = ""
    """Column of the label; by default label."""
    label_type: Literal["class", "classes", "number"] = "class"
    """One class; any number of classes at once, between which stands `label_separator`; a number."""
    label_separator: str = ","
    """What separates the classes of one example."""
    max_train_examples: int = 0
    """Use so many training examples, drawn by `seed`; 0: all."""
    max_seq_length: int = 128
    """Ids in a row, special tokens included: longer texts are cut, or go into several rows."""
    doc_stride: int = 128
    """Spans: pieces from the beginning of one window of a long paragraph to that of the next."""
    max_query_length: int = 64
    """Spans: pieces of the question that are kept."""
    max_answer_length: int = 30
    """Spans: pieces of the longest answer."""
    n_best_size: int = 20
    """Spans: answers that are kept of each window, and written."""
    max_target_length: int = 64
    """Sequence to sequence: ids of the longest target, special tokens included."""
    decoder_from: str = ""
    """Sequence to sequence: a run or checkpoint folder, of the same shape and vocabulary, that the
    decoder begins with; empty: `init_from`.
    """
    beam_size: int = 4
    """Sequence to sequence: beams that are kept; 1 decodes greedily."""
    length_buckets: tuple[int, ...] = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    """Lengths that rows are padded to; a step is compiled for each that occurs. Empty:
    max_seq_length alone.
    """
    task_exponent: float = 0.5
    """Of several tasks each is drawn in proportion to its training rows to this power; 1: as they
    are, 0: alike.
    """
    epochs: float = 3.0
    """Times that the training rows are gone through (of several tasks, all their rows together)."""
    warmup_fraction: float = 0.1
    """Share of the steps that the learning rate rises in."""
    evaluations_per_epoch: float = 1.0
    """Times an epoch that the validation set is evaluated, and a checkpoint saved; after the last
    step in any case.
    """
    label_smoothing: float = 0.0
    """Share of the probability that the loss spreads over all classes (arXiv 1512.00567)."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: each class weighs in the loss in inverse proportion to its training examples."""
    reinit_layers: int = 0
    """Layers at the top that start at random (arXiv 2006.05987)."""
    reinit_pooler: bool = False
    """The pooler starts at random too."""
    early_stopping_patience: int = 0
    """End after so many evaluations in a row without a better metric; 0: go through all epochs."""
    restore_best: bool = True
    """The result is the evaluation's best checkpoint; else the last."""

    def __post_init__(self) -> None:
        fraction("finetune", self, "task_exponent", "warmup_fraction", "label_smoothing")
        positive(
            "finetune",
            self,
            "doc_stride",
            "max_query_length",
            "max_answer_length",
            "n_best_size",
            "epochs",
        )
        positive("finetune", self, "evaluations_per_epoch", "max_target_length", "beam_size")
        check(
            self.label_smoothing < 1,
            where="finetune.label_smoothing",
            found=self.label_smoothing,
            expected="below 1",
        )
        check(
            self.label_separator != "",
            where="finetune.label_separator",
            found="nothing",
            expected="one character or more",
        )
        check(
            self.max_seq_length >= 8,
            where="finetune.max_seq_length",
            found=self.max_seq_length,
            expected="at least 8",
        )
        for name in ("max_train_examples", "reinit_layers", "early_stopping_patience"):
            check(
                getattr(self, name) >= 0,
                where=f"finetune.{name}",
                found=getattr(self, name),
                expected="0 or more",
            )
        buckets = list(self.length_buckets)
        ascending = buckets == sorted(set(buckets)) and all(length > 0 for length in buckets)
        check(
            ascending,
            where="finetune.length_buckets",
            found=self.length_buckets,
            expected="ascending lengths",
        )
        for entry in self.tasks:
            name, _, place = entry.partition("=")
            name, colon, kind = name.partition(":")
            good = name.replace("-", "_").isidentifier() and place and bool(kind) == bool(colon)
            check(
                good,
                where="finetune.tasks",
                found=entry,
                expected="NAME=PLACE or NAME:KIND=PLACE, the name a word",
            )
        names = [entry.partition("=")[0].partition(":")[0] for entry in self.tasks]
        check(
            len(set(names)) == len(names),
            where="finetune.tasks",
            found=", ".join(names),
            expected="each name once",
        )
