"""Lines of text as examples of each kind of task, and predictions as lines."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from bertjax.config import FinetuneConfig
from bertjax.errors import check
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.task import Task

TaskT = TypeVar("TaskT", bound=Task)
ExampleT = TypeVar("ExampleT")
PredictionT = TypeVar("PredictionT")

TAB = "\t"
Form = tuple[str, ...]
"""What the columns of a line hold, such as `question` and `context`."""


class TextLines(ABC, Generic[TaskT, ExampleT, PredictionT]):
    """The part of a kind of task that predicts lines of text, without a file of the task."""

    @abstractmethod
    def line_forms(
        self, task: TaskT, location: DataLocation, options: FinetuneConfig
    ) -> tuple[Form, ...]:
        """Return the forms that a line may have, of different numbers of columns."""

    @abstractmethod
    def example_of(self, identifier: str, columns: Sequence[str]) -> ExampleT:
        """Return the example, without a label, of the columns of a line."""

    @abstractmethod
    def answer_cells(self, prediction: PredictionT, options: FinetuneConfig) -> list[str]:
        """Return a prediction as columns of text, as the files of predictions have it."""

    @abstractmethod
    def answer_fields(self, task: TaskT, prediction: PredictionT) -> dict[str, Any]:
        """Return a prediction as values for JSON: `prediction`, and its probabilities if any."""


def columns_of(line: str, forms: Sequence[Form], where: str) -> list[str]:
    """Return the columns of a line, which are separated by tabs.

    Raises `UserError`, naming `where`, if none of the forms has as many columns, or if one of
    several columns is empty.
    """
    columns = line.split(TAB)
    check(
        len(columns) in {len(form) for form in forms},
        where=where,
        found=_counted(len(columns)),
        expected=" or ".join(map(_described, forms)),
    )
    if len(columns) > 1:
        blank = [number for number, column in enumerate(columns, 1) if not column.strip()]
        check(
            # An empty question or ending would get an answer that says nothing.
            not blank,
            where=where,
            found=f"nothing in column {', '.join(map(str, blank))} of {len(columns)}",
            expected="a text in each",
        )
    return columns


def one_line_cell(text: str) -> str:
    """Return a text with tabs and line ends as spaces: nothing quotes them in a line."""
    return text.replace(TAB, " ").replace("\r", " ").replace("\n", " ")


def _described(form: Form) -> str:
    shown = _counted(len(form))
    if len(form) == 1:
        return f"{shown} ({form[0]})"
    return f"{shown} ({', '.join(form)}), separated by tabs"


def _counted(columns: int) -> str:
    return f"{columns} column{'s' if columns != 1 else ''}"
