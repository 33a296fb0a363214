"""Lines of a table that have the names of its columns: headers, where no class has such a name."""

from collections.abc import Callable, Iterator, Sequence

from bertjax.errors import check
from bertjax.tasks.files.row import listed

Lines = Iterator[tuple[int, list[str]]]
"""The cells of each line, with the number of the line."""


class ColumnNames:
    """The names of a table's columns, and the lines that repeat them."""

    def __init__(
        self, columns: Sequence[str], labels: Sequence[str], read: Callable[[], Lines]
    ) -> None:
        """`labels` are possible names of the column of classes; `read` reads the lines anew."""
        self._plain = list(map(_plain_name, columns))
        self._folded = list(map(folded_name, columns))
        self._sorted = sorted(self._folded)
        self._columns = columns
        self._read = read
        found = [label for label in map(folded_name, labels) if label in self._folded]
        self._label_place = self._folded.index(found[0]) if found else None
        self._classes: dict[str, bool] = {}
        # A line of a single cell may be a text that is the name of its column.
        self.spellings = _spellings(columns) if len(columns) > 1 else frozenset()
        """What the first cell of a line that repeats the names may be, in any order of them."""

    def is_header(self, cells: Sequence[str], where: str) -> bool:
        """Return whether a line is a header: if it names the columns in their order.

        Spaces and quotes around a name do not matter. Nor do capitals, unless another line has the
        same label: it is a class then, as in `Name, label` of a table with the columns name and
        label. Raises `UserError` for the same names in another order, unless the label is a class:
        one of the two orders has the columns wrong.
        """
        if list(map(_plain_name, cells)) == self._plain:
            return True
        if not self._has_the_names(cells):
            return False
        if self._label_place is not None and self._is_class(cells[self._label_place].strip()):
            return False
        check(
            list(map(folded_name, cells)) == self._folded,
            where=where,
            found=f"a header with the columns {listed(cells)}",
            expected=f"{listed(self._columns)}, as finetune.columns or the first line says",
        )
        return True

    def _has_the_names(self, cells: Sequence[str]) -> bool:
        return sorted(map(folded_name, cells)) == self._sorted

    def _is_class(self, label: str) -> bool:
        """Return whether a line that could be no header has this label.

        All lines are read for this, as it can be any of them. Few tables have a line that asks.
        """
        if label not in self._classes:
            self._classes[label] = any(self._has_label(cells, label) for _, cells in self._read())
        return self._classes[label]

    def _has_label(self, cells: Sequence[str], label: str) -> bool:
        place = self._label_place
        if place is None or len(cells) != len(self._columns):
            return False
        return cells[place].strip() == label and not self._has_the_names(cells)


def _spellings(names: Sequence[str]) -> frozenset[str]:
    """Return ways in which a header may write its first name: exact texts, as these are fast."""
    ways = []
    for name in names:
        ways += [name, name.lower(), name.upper(), name.capitalize(), name.title()]
    return frozenset([*ways, *(f'"{way}"' for way in ways)])


def folded_name(name: str) -> str:
    """Return the name of a column without capitals, and without spaces and quotes around it."""
    return _plain_name(name).casefold()


def _plain_name(name: str) -> str:
    return name.strip().strip("\"'")
