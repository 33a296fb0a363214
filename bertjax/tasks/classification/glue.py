"""The tasks of GLUE (arXiv 1804.07461): how their files look, what they predict, and how they are
handed in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from etils import epath

from bertjax.errors import check
from bertjax.storage import write_lines
from bertjax.tasks.classification.predictions import (
    ClassPrediction,
    NumberPrediction,
    TextPrediction,
)
from bertjax.tasks.examples import TextExample

RTE_LABELS = ("entailment", "not_entailment")
MNLI_LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class GlueTask:
    """One task of GLUE; columns are those of its own TSV files."""

    name: str
    """As the literature writes it, in small letters; also its name in TFDS, `glue/NAME`."""
    texts: tuple[str, ...]
    """Columns of the text, or of the two."""
    submission: tuple[str, ...]
    """Names of the files to hand in, one for each of `test_splits`."""
    labels: tuple[str, ...] = ()
    """In the order of their numbers in the files and in TFDS; empty where a number is predicted."""
    label_column: str = "label"
    metrics: tuple[str, ...] = ("accuracy",)
    """The first chooses the best checkpoint."""
    numbered: bool = True
    """Whether its files, and those to hand in, have classes by their numbers, not their names."""
    tfds_texts: tuple[str, ...] = ()
    """Fields of the text in TFDS, where they are called otherwise; the label's is `label`."""
    columns: tuple[str, ...] = ()
    """The columns of its files that have no header line."""
    stems: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Other names of its files, by split."""
    validation_splits: tuple[str, ...] = ("validation",)
    test_splits: tuple[str, ...] = ("test",)
    broken_lines: bool = False
    """Whether its training set is known to have lines with too few columns, which everyone leaves
    out.
    """

    @property
    def label_type(self) -> Literal["class", "number"]:
        """The type of its labels, as `finetune.label_type` has it."""
        return "class" if self.labels else "number"


PAIR = ("sentence1", "sentence2")
TASKS = (
    GlueTask(
        "cola",
        ("sentence",),
        ("CoLA.tsv",),
        ("unacceptable", "acceptable"),
        metrics=("matthews_correlation", "accuracy"),
        columns=("source", "label", "star", "sentence"),
    ),
    GlueTask("sst2", ("sentence",), ("SST-2.tsv",), ("negative", "positive")),
    GlueTask(
        "mrpc",
        ("#1 String", "#2 String"),
        ("MRPC.tsv",),
        ("not_equivalent", "equivalent"),
        "Quality",
        ("accuracy", "f1"),
        tfds_texts=PAIR,
        stems={"train": ("msr_paraphrase_train",), "test": ("msr_paraphrase_test",)},
    ),
    GlueTask("stsb", PAIR, ("STS-B.tsv",), (), "score", ("pearson", "spearman")),
    GlueTask(
        "qqp",
        ("question1", "question2"),
        ("QQP.tsv",),
        ("not_duplicate", "duplicate"),
        "is_duplicate",
        ("accuracy", "f1"),
        broken_lines=True,
    ),
    GlueTask(
        "mnli",
        PAIR,
        ("MNLI-m.tsv", "MNLI-mm.tsv"),
        MNLI_LABELS,
        "gold_label",
        numbered=False,
        tfds_texts=("premise", "hypothesis"),
        validation_splits=("validation_matched", "validation_mismatched"),
        test_splits=("test_matched", "test_mismatched"),
    ),
    GlueTask("qnli", ("question", "sentence"), ("QNLI.tsv",), RTE_LABELS, numbered=False),
    GlueTask("rte", PAIR, ("RTE.tsv",), RTE_LABELS, numbered=False),
    GlueTask("wnli", PAIR, ("WNLI.tsv",), RTE_LABELS[::-1]),
)
_BY_NAME = {task.name: task for task in TASKS}


def glue_task(name: str) -> GlueTask | None:
    """Return the task of that name, in any spelling (`sst2`, `SST-2`, `sts_b`, `CoLA`), or None."""
    return _BY_NAME.get(name.lower().replace("-", "").replace("_", ""))


def glue_label(task: GlueTask, value: Any, where: str) -> str | float | None:
    """Return the label that a file or TFDS spells as `value`: a class, or a number in 0..5.

    Classes are spelled by their name or their number. None for no label: no value, an empty one,
    -1, or MNLI's `-` (its five annotators did not agree). Raises `UserError` at `where` for any
    other value.
    """
    text = "" if value is None else str(value).strip()
    if text in ("", "-", "-1", "-1.0"):
        return None
    return _class_of(task, text, where) if task.labels else _score_of(text, where)


def _class_of(task: GlueTask, text: str, where: str) -> str:
    label = text
    if text.isdecimal() and int(text) < len(task.labels):
        label = task.labels[int(text)]
    check(
        label in task.labels,
        where=where,
        found=f"the label {text!r}",
        expected=f"one of {', '.join(task.labels)}, or 0 to {len(task.labels) - 1}",
    )
    return label


def _score_of(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
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
    """Write the file that gluebenchmark.com takes for one of `test_splits`; return its path.

    It is a TSV file with the header `index`, `prediction`. `index` is the example's id, which is
    the test file's own index. Classes are written by their number or name as in the task's own
    files; STS-B's scores within 0..5, with three decimals.
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
        return f"{min(max(prediction.value, 0.0), 5.0):.3f}"
    assert isinstance(prediction, ClassPrediction)
    if task.numbered:
        return str(task.labels.index(prediction.label))
    return prediction.label
