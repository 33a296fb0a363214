"""Configuration of fine-tuning: the tasks, their data, and methods for little data."""

from dataclasses import dataclass
from typing import Literal

from bertjax.config.range_checks import fraction, not_negative, positive
from bertjax.errors import check


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """The tasks that an encoder is fine-tuned on (arXiv 1810.04805, section 4).

    Without tasks the run is pretraining.
    """

    tasks: tuple[str, ...] = ()
    """Tasks, as NAME=PLACE or NAME:KIND=PLACE each.
    NAME alone is a known data set, such as GLUE's (rte=data/RTE). KIND is a kind of task:
    classification, tagging, spans, choice or seq2seq. PLACE is a folder, `tfds:NAME[/CONFIG]`, or
    `python-docs`: tell which package of the standard library a docstring is from, a task that
    needs no download.
    """
    train_files: tuple[str, ...] = ()
    """Training files within PLACE, where they are not named train.*; of a single task only."""
    validation_files: tuple[str, ...] = ()
    """Validation files within PLACE, where they are not named validation.* or dev.*."""
    test_files: tuple[str, ...] = ()
    """Test files within PLACE, where they are not named test.*."""
    columns: tuple[str, ...] = ()
    """Column names of tables that have no header line."""
    text_columns: tuple[str, ...] = ()
    """Columns of the text, or of a pair's two texts.
    Empty: sentence, or sentence1 and sentence2.
    """
    label_column: str = ""
    """Column of the label; empty: label."""
    label_type: Literal["class", "classes", "number"] = "class"
    """Type of the labels: one class, any number of classes at once, or a number (regression).
    Classes of one example are separated by label_separator.
    """
    label_separator: str = ","
    """Characters between the classes of one example (label_type classes)."""
    max_train_examples: int = 0
    """Maximum number of training examples, drawn by seed; 0: all."""
    max_seq_length: int = 128
    """Maximum sequence length in tokens, special tokens included; at least 8.
    Longer texts are truncated, or divided into several rows.
    """
    # The defaults of the next four are those of the original BERT's run_squad.py.
    doc_stride: int = 128
    """Spans: distance in tokens between the starts of two windows of a long paragraph."""
    max_query_length: int = 64
    """Spans: maximum length of the question in tokens; longer ones are truncated."""
    max_answer_length: int = 30
    """Spans: maximum length of an answer in tokens."""
    n_best_size: int = 20
    """Spans: number of best answers kept of each window, and written."""
    max_target_length: int = 64
    """Sequence to sequence: maximum length of a target in tokens, special tokens included."""
    decoder_from: str = ""
    """Sequence to sequence: run or checkpoint folder that the decoder starts from.
    Its model must have the encoder's shape and vocabulary. Empty: init_from.
    """
    beam_size: int = 4
    """Sequence to sequence: number of beams of the search; 1: greedy decoding."""
    # Closer together where most sentences are: padding to the next one costs little, a compile
    # each costs seconds.
    length_buckets: tuple[int, ...] = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    """Lengths that batches are padded to, ascending; empty: max_seq_length alone.
    A batch has the least length that its longest row fits. A step is compiled for each length that
    occurs.
    """
    task_exponent: float = 0.5
    """Several tasks: exponent from 0 (all alike) to 1 (in proportion to size).
    Each is drawn with a probability proportional to its number of training rows to this power.
    """
    # This and the fraction of the warmup are the defaults of the original's run_classifier.py.
    epochs: float = 3.0
    """Number of passes over the training rows (of all tasks together)."""
    warmup_fraction: float = 0.1
    """Fraction of the steps in which the learning rate rises (0 to 1)."""
    evaluations_per_epoch: float = 1.0
    """Number of evaluations of the validation set in an epoch, each with a checkpoint.
    The last step is always evaluated.
    """
    label_smoothing: float = 0.0
    """Label smoothing: share of the probability spread over all classes (arXiv 1512.00567).
    0 to below 1; 0: none.
    """
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in the loss.
    balanced: in inverse proportion to the class's number of training examples.
    """
    reinit_layers: int = 0
    """Number of top layers that start with random parameters (arXiv 2006.05987)."""
    reinit_pooler: bool = False
    """Start the pooler with random parameters as well."""
    early_stopping_patience: int = 0
    """End after this number of evaluations in a row without improvement; 0: run all epochs."""
    restore_best: bool = True
    """Use the checkpoint of the best evaluation as the result; otherwise the last one."""

    def __post_init__(self) -> None:
        fraction("finetune", self, "task_exponent", "warmup_fraction", "label_smoothing")
        positive("finetune", self, "doc_stride", "max_query_length", "max_answer_length")
        positive("finetune", self, "n_best_size", "epochs", "evaluations_per_epoch")
        positive("finetune", self, "max_target_length", "beam_size")
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
        not_negative(
            "finetune", self, "max_train_examples", "reinit_layers", "early_stopping_patience"
        )
        _check_length_buckets(self)
        _check_tasks(self)


def _check_length_buckets(finetune: FinetuneConfig) -> None:
    lengths = list(finetune.length_buckets)
    ascending = lengths == sorted(set(lengths))
    check(
        ascending and all(length > 0 for length in lengths),
        where="finetune.length_buckets",
        found=finetune.length_buckets,
        expected="ascending lengths",
    )


def _check_tasks(finetune: FinetuneConfig) -> None:
    names = []
    for entry in finetune.tasks:
        name_and_kind, _, location = entry.partition("=")
        name, colon, kind = name_and_kind.partition(":")
        # The name stands in the names of arrays, metrics and files, so it has no slash or space.
        is_word = name.replace("-", "_").isidentifier()
        has_kind_after_colon = bool(kind) == bool(colon)
        check(
            is_word and location and has_kind_after_colon,
            where="finetune.tasks",
            found=entry,
            expected="NAME=PLACE or NAME:KIND=PLACE, the name a word",
        )
        names.append(name)
    check(
        len(set(names)) == len(names),
        where="finetune.tasks",
        found=", ".join(names),
        expected="each name once",
    )
