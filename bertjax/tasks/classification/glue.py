"""The tasks of GLUE (arXiv 1804.07461): files and labels of each, and the files to submit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from etils import epath

from bertjax.errors import check
from bertjax.number_text import number_text, whole_number
from bertjax.storage import write_lines
from bertjax.tasks.classification.label_values import class_name
from bertjax.tasks.classification.predictions import (
    ClassPrediction,
    NumberPrediction,
    TextPrediction,
)
from bertjax.tasks.examples import TextExample
from bertjax.tasks.files.missing import is_missing

RTE_LABELS = ("entailment", "not_entailment")
MNLI_LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True, kw_only=True)
class GlueTask:
    """One task of GLUE; the names of columns are those in its own TSV files."""

    name: str
    """The usual name in lower case; in TFDS the data set is `glue/NAME`."""
    texts: tuple[str, ...]
    """Column of the text, or the columns of both texts."""
    submission: tuple[str, ...]
    """Names of the files to submit, one for each of `test_splits`."""
    labels: tuple[str, ...] = ()
    """Classes in the order of their numbers in the files and in TFDS; empty: labels are numbers."""
    label_column: str = "label"
    metrics: tuple[str, ...] = ("accuracy",)
    """Names of the metrics; the first one selects the best checkpoint."""
    numbered: bool = True
    """True if the task's files and the files to submit have numbers of classes; False: names."""
    tfds_texts: tuple[str, ...] = ()
    """Fields of the texts in TFDS, if not `texts`; the field of the label is always `label`."""
    columns: tuple[str, ...] = ()
    """Columns of those files of the task that have no header line."""
    stems: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Additional names of the task's files for each split."""
    validation_splits: tuple[str, ...] = ("validation",)
    test_splits: tuple[str, ...] = ("test",)
    broken_lines: bool = False
    """True if the training set has lines with too few columns, which are left out."""

    @property
    def label_type(self) -> Literal["class", "number"]:
        """The type of the task's labels, a value of `finetune.label_type`."""
        return "class" if self.labels else "number"


PAIR = ("sentence1", "sentence2")
# The metrics are those of table 1 in the paper. CoLA has accuracy in addition.
TASKS = (
    GlueTask(
        name="cola",
        texts=("sentence",),
        submission=("CoLA.tsv",),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews_correlation", "accuracy"),
        # From https://nyu-mll.github.io/CoLA/: the third is the label as the source writes it, a
        # star or nothing.
        columns=("source", "label", "star", "sentence"),
    ),
    GlueTask(
        name="sst2",
        texts=("sentence",),
        submission=("SST-2.tsv",),
        labels=("negative", "positive"),
    ),
    GlueTask(
        name="mrpc",
        texts=("#1 String", "#2 String"),
        submission=("MRPC.tsv",),
        labels=("not_equivalent", "equivalent"),
        label_column="Quality",
        metrics=("accuracy", "f1"),
        tfds_texts=PAIR,
        # MRPC is published by Microsoft, in files of these names.
        stems={"train": ("msr_paraphrase_train",), "test": ("msr_paraphrase_test",)},
    ),
    GlueTask(
        name="stsb",
        texts=PAIR,
        submission=("STS-B.tsv",),
        label_column="score",
        metrics=("pearson", "spearman"),
    ),
    GlueTask(
        name="qqp",
        texts=("question1", "question2"),
        submission=("QQP.tsv",),
        labels=("not_duplicate", "duplicate"),
        label_column="is_duplicate",
        metrics=("accuracy", "f1"),
        broken_lines=True,
    ),
    GlueTask(
        name="mnli",
        texts=PAIR,
        submission=("MNLI-m.tsv", "MNLI-mm.tsv"),
        labels=MNLI_LABELS,
        label_column="gold_label",
        numbered=False,
        tfds_texts=("premise", "hypothesis"),
        validation_splits=("validation_matched", "validation_mismatched"),
        test_splits=("test_matched", "test_mismatched"),
    ),
    GlueTask(
        name="qnli",
        texts=("question", "sentence"),
        submission=("QNLI.tsv",),
        labels=RTE_LABELS,
        numbered=False,
    ),
    GlueTask(
        name="rte",
        texts=PAIR,
        submission=("RTE.tsv",),
        labels=RTE_LABELS,
        numbered=False,
    ),
    GlueTask(
        name="wnli",
        texts=PAIR,
        submission=("WNLI.tsv",),
        labels=RTE_LABELS[::-1],  # in WNLI 0 means that it does not follow, in RTE that it does
    ),
)
_BY_NAME = {task.name: task for task in TASKS}


def glue_task(name: str) -> GlueTask | None:
    """Return the task with this name in any spelling (`sst2`, `SST-2`, `sts_b`), or None."""
    return _BY_NAME.get(name.lower().replace("-", "").replace("_", ""))


def glue_label(task: GlueTask, value: Any, where: str) -> str | float | None:
    """Return the label for `value` in a file or TFDS: a class, or a number in 0..5.

    `value` is the name or the number of a class, or the number itself. The result is None if there
    is no label: if `value` is None, NaN, empty, -1, or `-` (in MNLI: the five annotators did not
    agree). Raises `UserError`, whose message begins with `where`, for any other value.
    """
    if is_missing(value):
        return None
    # Scores are left as they are, but a class may be the float 1.0, as in a column with a NaN.
    text = class_name(value, where) if task.labels else str(value).strip()
    # TFDS has -1 for the labels of test sets, and for STS-B's scores the float -1.0.
    if text in ("-", "-1", "-1.0"):
        return None
    return _class_of(task, text, where) if task.labels else _score_of(text, where)


def _class_of(task: GlueTask, text: str, where: str) -> str:
    label = text
    number = whole_number(text) if text.isdecimal() else None
    if number is not None and number < len(task.labels):
        label = task.labels[number]
    check(
        label in task.labels,
        where=where,
        found=f"the label {text[:80]!r}",
        expected=f"one of {', '.join(task.labels)}, or 0 to {len(task.labels) - 1}",
    )
    return label


def _score_of(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        # NaN fails the check below, as it is in no range.
        score = float("nan")
    check(
        0 <= score <= 5, where=where, found=f"the score {text!r}", expected="a number from 0 to 5"
    )
    return score


def write_submission(
    folder: epath.PathLike,
    task: GlueTask,
    split: str,
    predictions: Sequence[TextPrediction],
    examples: Sequence[TextExample],
) -> epath.Path:
    """Write the file to submit to gluebenchmark.com for one of `test_splits`; return its path.

    It is a TSV file with the columns `index` and `prediction`. `index` is the example's id, which
    comes from the test file. Classes are written as numbers or names, like in the task's own files.
    Scores of STS-B are clipped to 0..5 and have three decimals.
    """
    check(
        split in task.test_splits,
        where=f"submission of {task.name}",
        found=f"the split {split}",
        expected=f"one of {', '.join(task.test_splits)}",
    )
    path = epath.Path(folder) / task.submission[task.test_splits.index(split)]
    lines = ["index\tprediction"]
    for prediction, example in zip(predictions, examples, strict=True):
        lines.append(f"{example.id}\t{_submitted(task, prediction)}")
    write_lines(path, lines)
    return path


def _submitted(task: GlueTask, prediction: TextPrediction) -> str:
    if isinstance(prediction, NumberPrediction):
        return number_text(min(max(prediction.value, 0.0), 5.0), ".3f")
    assert isinstance(prediction, ClassPrediction)
    if task.numbered:
        return str(task.labels.index(prediction.label))
    return prediction.label
