"""Configuration of fine-tuning: the tasks, their data, and methods for little data."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from bertjax.config.field_types import check_fields
from bertjax.config.range_checks import fit_int32, fraction, not_negative, positive
from bertjax.config.sparsity import check_sparsity
from bertjax.errors import check

QuantizationAware = Literal["none", "int8", "int4"]


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """The tasks that an encoder is fine-tuned on (arXiv 1810.04805, section 4).

    Without tasks the run is pretraining.
    """

    tasks: tuple[str, ...] = ()
    """Tasks, each as NAME=PLACE or NAME:KIND=PLACE.
    KIND is the kind of task: classification, tagging, spans, choice or seq2seq. It can be left out
    if NAME is a known data set, such as one of GLUE (rte=data/RTE). PLACE says where the data is: a
    folder, `tfds:NAME[/CONFIG]`, or `python-docs`. `python-docs` needs no download: its task is to
    predict which package of the standard library a docstring is from.
    """
    train_files: tuple[str, ...] = ()
    """Training files within PLACE, if they are not named train.*; only for a single task."""
    validation_files: tuple[str, ...] = ()
    """Validation files within PLACE, if they are not named validation.* or dev.*."""
    test_files: tuple[str, ...] = ()
    """Test files within PLACE, if they are not named test.*."""
    file_form: Literal["table", "label_text"] = "table"
    """Classification: form of the files.
    table: the ending tells the format. label_text: each line is a label, a space and the text, as
    in the files of TREC and of fastText. TREC's six classes are the column coarse_label.
    """
    encoding: str = "utf-8"
    """Encoding of the files of text, such as latin-1 or windows-1252 for old data sets."""
    columns: tuple[str, ...] = ()
    """Column names of tables that have no header line."""
    text_columns: tuple[str, ...] = ()
    """Column of the text, or the two columns of a pair of texts.
    Empty: sentence1 and sentence2, sentence, or text, whichever the table has.
    """
    label_column: str = ""
    """Column of the label; empty: the column named label.
    Tagging: in CoNLL files the number of the tag's column, from 0, or its name (in CoNLL-U upos,
    xpos and so on); in other files the field of the tags. text_columns names that of the words.
    """
    label_names: tuple[str, ...] = ()
    """Tagging: names of tags that are numbers, in order from 0; or one file that has them.
    The file has a name on each line, or is JSON (a list, or id2label or names in an object).
    """
    strict_entities: bool = False
    """Tagging: count only entities whose tags follow the rules of their scheme (seqeval's strict).
    False: broken sequences have entities as in conlleval and in seqeval's default mode.
    """
    keep_gold_tags: bool = False
    """Tagging: write predictions as lines of word, gold tag and predicted tag (conlleval's input).
    """
    label_columns: tuple[str, ...] = ()
    """Columns of several labels (label_type classes), instead of label_column.
    Each column is a class, whose name it has; its values are 1 (the example has the class) and 0.
    """
    label_type: Literal["class", "classes", "number"] = "class"
    """Type of the labels: one class, any number of classes at once, or a number (regression).
    Classes of one example are separated by label_separator, or are a list. Lists of 0 and 1, all
    of one length, say which classes an example has; then the classes are named 0, 1 and so on.
    """
    label_separator: str = ","
    """Characters between the classes of one example (label_type classes)."""
    max_train_examples: int = 0
    """Maximum number of training examples, drawn by seed; 0: all."""
    max_seq_length: int = 128
    """Maximum sequence length in tokens, special tokens included; at least 8.
    Longer texts are truncated, or divided into several rows if the kind of task does that.
    """
    # The next four fields have the defaults of run_squad.py of the original BERT.
    doc_stride: int = 128
    """Spans: number of tokens from the start of one window of a long paragraph to the next."""
    max_query_length: int = 64
    """Spans: maximum length of a question in tokens; longer questions are truncated."""
    max_answer_length: int = 30
    """Spans: maximum length of an answer in tokens."""
    n_best_size: int = 20
    """Spans: number of best answers that are kept for each window and written to the file."""
    answer_rule: Literal[
        "auto",
        "squad",
        "cmrc2018",
        "mlqa_ar",
        "mlqa_de",
        "mlqa_en",
        "mlqa_es",
        "mlqa_hi",
        "mlqa_vi",
        "mlqa_zh",
        "korquad",
        "characters",
    ] = "auto"
    """Spans: rule that compares answers, after the official script of a data set.
    auto: that of the data set that the task's name has in it (cmrc2018, drcd, mlqa_zh, korquad);
    or else, by the paragraphs and answers of the set, mlqa_zh in Chinese, characters in other
    scripts without spaces, squad in all others.
    """
    unanswerable: bool = False
    """Spans: questions may have no answer, as in SQuAD 2.0, although all training questions have
    one. Where a training question has none, this is so without the option.
    """
    max_target_length: int = 64
    """Sequence to sequence: maximum length of a target in tokens, special tokens included."""
    decoder_from: str = ""
    """Sequence to sequence: run or checkpoint folder with the decoder's initial parameters.
    The model in it must have the encoder's shape and vocabulary. Empty: the folder init_from.
    """
    beam_size: int = 4
    """Sequence to sequence: number of beams of the search; 1: greedy decoding."""
    bleu_tokenizer: Literal["auto", "13a", "intl", "zh", "char"] = "auto"
    """Sequence to sequence: what divides texts into the words of BLEU, by its name in sacrebleu.
    auto: zh for targets in Chinese, char in other scripts without spaces, 13a for all others.
    """
    # The lengths are closer together in the range of most sentences. More of them would save
    # little padding, and the compilation for each length takes seconds.
    length_buckets: tuple[int, ...] = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    """Lengths that batches are padded to, ascending; empty: max_seq_length alone.
    A batch is padded to the smallest of these lengths that its longest row fits into. The step is
    compiled once for each length that occurs.
    """
    task_exponent: float = 0.5
    """Several tasks: exponent from 0 (all tasks equally often) to 1 (in proportion to size).
    The probability of a task is proportional to (its number of training rows) ** task_exponent.
    """
    # This and the fraction of the warmup are the defaults of the original's run_classifier.py.
    epochs: float = 3.0
    """Number of passes over the training rows (those of all tasks together)."""
    warmup_fraction: float = 0.1
    """Fraction of all steps during which the learning rate rises (0 to 1)."""
    evaluations_per_epoch: float = 1.0
    """Number of evaluations on the validation set in an epoch; each also saves a checkpoint.
    There is always an evaluation after the last step.
    """
    label_smoothing: float = 0.0
    """Label smoothing: share of the probability that is spread over all classes.
    0 to below 1 (arXiv 1512.00567); 0: no smoothing.
    """
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in the loss.
    none: all are 1. balanced: each is inversely proportional to the class's number of training
    examples.
    """
    reinit_layers: int = 0
    """Number of top layers that start with random parameters (arXiv 2006.05987)."""
    reinit_pooler: bool = False
    """Start the pooler with random parameters."""
    quantization_aware: QuantizationAware = "none"
    """Round matrices in training as `bertjax quantize` does afterwards, so that it loses less.
    int8: weights and the inputs of products, to 8 bits. int4: weights alone, to 4 bits. Each output
    of a matrix and each vector of inputs has a scale of its own (arXiv 1712.05877, section 3).
    Evaluations, predictions and exports compute with the weights as they are.
    """
    early_stopping_patience: int = 0
    """Number of evaluations in a row without improvement that end the run; 0: run all epochs."""
    metric: tuple[str, ...] = ()
    """Metric that chooses the checkpoint; empty: the usual one of the task.
    Metrics after the first are also computed and reported. NAME:CLASS is the metric of one class,
    as f1:spam. Of several tasks: TASK=METRIC for one of them. Which metrics exist depends on the
    kind of task; a name that is not known is answered with a list of them.
    """
    restore_best: bool = True
    """Use the checkpoint of the best evaluation as the result, of equally good ones the latest; if
    False, the last checkpoint.
    """
    sparsity: float = 0.0
    """Share of the weights in the layers' kernels that are 0 at the end: 0 (none) to below 1.
    In each kernel of each layer the smallest weights become 0 and stay 0. The share rises by the
    cubic schedule of arXiv 1710.01878. Only a checkpoint that has the whole share is the result.
    """
    sparsity_pattern: str = ""
    """N:M, such as 2:4, in place of sparsity: of each M weights for one output, N stay.
    The groups are M inputs that follow each other (arXiv 2104.08378). The others become 0 at
    sparsity_begin, all at once, and stay 0. M must divide the inputs of each kernel.
    """
    sparsity_begin: float = 0.0
    """Fraction of all steps after which weights begin to become 0."""
    sparsity_end: float = 0.5
    """Fraction of all steps after which sparsity is reached; the rest of the run recovers."""
    sparsity_interval: int = 10
    """Number of steps from one rise of the share to the next."""

    def __post_init__(self) -> None:
        check_fields("finetune", self)
        fit_int32("finetune", self)
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
        check_sparsity(self)
        _check_files(self)
        _check_length_buckets(self)
        _check_tasks(self)

    @property
    def makes_sparse(self) -> bool:
        """True if weights become 0 during the run."""
        return self.sparsity > 0 or self.sparsity_pattern != ""


def _check_files(finetune: FinetuneConfig) -> None:
    check(
        _contains_ascii(finetune.encoding),
        where="finetune.encoding",
        found=finetune.encoding,
        expected="the name of an encoding that contains ASCII, such as latin-1",
    )
    check(
        finetune.file_form == "table" or not finetune.columns,
        where="finetune.columns",
        found=finetune.columns,
        expected="none where finetune.file_form is label_text: its columns are label and text",
    )
    several = finetune.label_columns
    check(
        not several or finetune.label_type == "classes",
        where="finetune.label_columns",
        found=several,
        expected="none, or finetune.label_type classes",
    )
    check(
        not several or not finetune.label_column,
        where="finetune.label_columns",
        found=several,
        expected="none where finetune.label_column is given",
    )
    check(
        len(set(several)) == len(several),
        where="finetune.label_columns",
        found=several,
        expected="each name once",
    )


def _contains_ascii(encoding: str) -> bool:
    """Return whether an encoding is known, and has each character of ASCII as its own byte."""
    # Lines are parted at the byte of a line feed, which UTF-16 has in other characters too.
    try:
        return "".join(map(chr, range(128))).encode(encoding) == bytes(range(128))
    # ValueError: a name with a null character.
    except (LookupError, ValueError):
        return False


def _check_length_buckets(finetune: FinetuneConfig) -> None:
    lengths = list(finetune.length_buckets)
    ascending = lengths == sorted(set(lengths))
    check(
        ascending and all(length > 0 for length in lengths),
        where="finetune.length_buckets",
        found=finetune.length_buckets,
        expected="ascending lengths",
    )


class TaskParts(NamedTuple):
    """The parts of an entry of `FinetuneConfig.tasks`."""

    name: str
    kind: str | None
    """None if the entry has no colon."""
    place: str


def task_parts(entry: str) -> TaskParts:
    """Return the parts of NAME=PLACE or NAME:KIND=PLACE."""
    # The place is cut off first: it may have colons of its own, as tfds:NAME has.
    name_and_kind, _, place = entry.partition("=")
    name, colon, kind = name_and_kind.partition(":")
    return TaskParts(name, kind if colon else None, place)


def _check_tasks(finetune: FinetuneConfig) -> None:
    names = []
    for entry in finetune.tasks:
        name, kind, place = task_parts(entry)
        # The name stands in the names of arrays, metrics and files, so it has no slash or space.
        is_word = name.replace("-", "_").isidentifier()
        check(
            is_word and place and kind != "",
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
