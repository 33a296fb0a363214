"""Predictions for texts (a class, a set of classes or a number), and a table of predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from etils import epath

from bertjax.number_text import number_text
from bertjax.storage import write_whole
from bertjax.tasks.examples import TextExample
from bertjax.tasks.text_lines import one_line_cell

# A class belongs to the predicted set if its probability is THRESHOLD or more. 0.5 is the usual
# choice for sigmoid outputs.
THRESHOLD = 0.5


class TextPrediction(Protocol):
    """Interface of all predictions for a text."""

    columns: ClassVar[tuple[str, ...]]
    """The names of the columns of `cells`."""

    def cells(self, separator: str) -> list[str]:
        """Return the cells for a table; `separator` is put between several classes."""
        ...

    def fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return values for JSON: `prediction`, and `probabilities` of classes by `labels`."""
        ...

    def answer(self) -> str:
        """Return what is predicted as text for a reader."""
        ...

    def shown(self) -> str:
        """Return `answer`, for one class with its probability."""
        ...


@dataclass(frozen=True)
class ClassPrediction:
    """The prediction of one class."""

    label: str
    probabilities: tuple[float, ...] = ()
    """The probability of each of the task's labels, in the order of the labels; the sum is 1."""

    columns: ClassVar[tuple[str, ...]] = ("prediction", "probability")

    def cells(self, separator: str) -> list[str]:
        """Return the class and its probability."""
        return [self.label, number_text(max(self.probabilities), ".4f")]

    def fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the class, and the probability of each."""
        return {"prediction": self.label, "probabilities": _by_label(labels, self.probabilities)}

    def answer(self) -> str:
        """Return the class."""
        return self.label

    def shown(self) -> str:
        """Return the class with its probability in percent."""
        return f"{self.label} ({number_text(max(self.probabilities), '.0%')})"


@dataclass(frozen=True)
class LabelSetPrediction:
    """The prediction of any number of classes."""

    labels: tuple[str, ...]
    """The classes with a probability of `THRESHOLD` or more."""
    probabilities: tuple[float, ...] = ()
    """The probability (0 to 1) of each of the task's labels, in the order of the labels."""

    columns: ClassVar[tuple[str, ...]] = ("prediction", "probability")

    def cells(self, separator: str) -> list[str]:
        """Return the classes and their probabilities."""
        predicted = [number_text(p, ".4f") for p in self.probabilities if p >= THRESHOLD]
        return [separator.join(self.labels), separator.join(predicted)]

    def fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the list of classes, and the probability of each."""
        probabilities = _by_label(labels, self.probabilities)
        return {"prediction": list(self.labels), "probabilities": probabilities}

    def answer(self) -> str:
        """Return the classes, separated by commas."""
        return ", ".join(self.labels) or "none"

    def shown(self) -> str:
        """Return `answer`."""
        return self.answer()


@dataclass(frozen=True)
class NumberPrediction:
    """The prediction of a number."""

    value: float

    columns: ClassVar[tuple[str, ...]] = ("prediction",)

    def cells(self, separator: str) -> list[str]:
        """Return the number with six significant digits."""
        return [number_text(self.value, ".6g")]

    def fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the number."""
        return {"prediction": float(self.value)}

    def answer(self) -> str:
        """Return the number with three decimals."""
        return number_text(self.value, ".3f")

    def shown(self) -> str:
        """Return `answer`."""
        return self.answer()


def write_predictions(
    path: epath.PathLike,
    predictions: Sequence[TextPrediction],
    examples: Sequence[TextExample],
    label_separator: str = ",",
) -> None:
    """Write a TSV file with a header line.

    Its columns are `id`; `sentence`, or `sentence1` and `sentence2`; `prediction`; and, if classes
    are predicted, `probability`. `label_separator` separates several classes and their
    probabilities. Tabs and line ends within a text become spaces.
    """
    paired = any(example.pair is not None for example in examples)
    texts = ("sentence1", "sentence2") if paired else ("sentence",)
    lines = [["id", *texts, *predictions[0].columns]]
    for prediction, example in zip(predictions, examples, strict=True):
        cells = [example.id, example.text]
        if paired:
            cells.append(example.pair or "")
        lines.append(cells + prediction.cells(label_separator))
    content = "".join(_line(cells) for cells in lines)
    write_whole(epath.Path(path), content.encode())


def _line(cells: Sequence[str]) -> str:
    # TSV has no quoting here (`read_table` takes quotes for text), so a tab cannot be kept.
    return "\t".join(one_line_cell(cell) for cell in cells) + "\n"


def _by_label(labels: Sequence[str], probabilities: Sequence[float]) -> dict[str, float]:
    return {label: float(p) for label, p in zip(labels, probabilities, strict=True)}
