"""One row of a table, whatever the format of its file is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.errors import UserError, check, one_line


class TableRow(NamedTuple):
    """One row of a table."""

    file: str
    number: int
    """Number of the row in its `unit`; from 1, but from 0 for an example or a docstring."""
    values: Mapping[str, Any]
    """Value of each column: text, or any value of JSON; None for a label that is not known."""
    unit: str = "line"
    """The unit of `number`: `line` where the row begins, `item` of a JSON array, `row` of Parquet,
    `example` of TFDS, or `docstring`."""

    @property
    def where(self) -> str:
        """File and line of the row, for error messages."""
        return f"{self.file}, {self.unit} {self.number}"

    def value(self, column: str) -> Any:
        """Return the value of a column; `UserError` with the row's columns if it is missing."""
        if column not in self.values:
            raise UserError(
                f"{self.where}: found the columns {listed(self.values)},"
                f" expected {column!r} among them"
            )
        return self.values[column]


def check_columns_differ(columns: Sequence[str], where: str) -> None:
    """Raise `UserError` if two columns have one name: a row would keep only the last of them."""
    check(
        len(set(columns)) == len(columns),
        where=where,
        found=f"the columns {listed(columns)}",
        expected="each name once",
    )


def listed(names: Iterable[object]) -> str:
    """Return the names in one line, separated by commas; `none` if there are no names."""
    return one_line(", ".join(map(str, names))) or "none"
