"""The columns of a table with the labels: one, or a column of 0 and 1 for each class."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bertjax.errors import UserError, check, mismatch
from bertjax.tasks.classification.label_lists import UNKNOWN, bit_of
from bertjax.tasks.classification.labels import LabelParser
from bertjax.tasks.classification.list_texts import Listed
from bertjax.tasks.files.header_lines import header_found, may_be_header
from bertjax.tasks.files.missing import is_missing
from bertjax.tasks.files.row import TableRow


@dataclass
class LabelColumn:
    """The one column of a table with the labels."""

    column: str
    """Name of the column; empty if the table has no labels."""
    parse: LabelParser
    required: bool
    """True if each table row must have the column."""
    texts: Sequence[str]
    """The columns of the texts."""
    classes: tuple[str, ...] = ()
    """Empty: the column does not say which classes there are."""
    _parsed: dict[str, Any] = field(default_factory=dict)
    """Labels by their text: 400,000 examples have few different labels and share these objects."""
    _headers: dict[Any, TableRow] = field(default_factory=dict)
    """Rows that are headers unless another row has their label, the key here."""

    def label_of(self, row: TableRow) -> Any:
        """Return the label of a table row; None if the row has no label."""
        value = row.values.get(self.column) if self.column else None
        # No label of fastText: it equals a text that has separators.
        if type(value) is str:
            return self._parsed[value] if value in self._parsed else self._new_label(value, row)
        if not self.column:
            if row.number == 1 and may_be_header(row, self.texts, ""):
                raise header_found(row)
        elif value is None and self.required:
            # For its error, if the column is missing.
            row.value(self.column)
        return self.parse(value, row.where)

    def _new_label(self, value: str, row: TableRow) -> Any:
        is_name = may_be_header(row, self.texts, self.column)
        try:
            label = self.parse(value, row.where)
        except UserError as error:
            if is_name:
                raise header_found(row) from error
            raise
        if is_name:
            # It is not kept, so that the next row with this label comes here too.
            self._headers.setdefault(label, row)
        else:
            self._parsed[value] = label
        return label

    def check_no_header(self) -> None:
        """Raise `UserError` for a header that was read as an example; call it after all rows."""
        if not self._headers:
            return
        classes = {name for label in self._parsed.values() for name in _names(label)}
        for label, row in self._headers.items():
            if not classes.issuperset(_names(label)):
                raise header_found(row)


def _names(label: Any) -> tuple[Any, ...]:
    return label.values if isinstance(label, Listed) else (label,)


@dataclass(frozen=True)
class LabelColumns:
    """The columns of a table, one for each class, that say which classes an example has."""

    classes: tuple[str, ...]
    """Names of the columns, which are those of the classes."""
    required: bool
    """True if each table row must have the columns."""

    def label_of(self, row: TableRow) -> tuple[str, ...] | None:
        """Return the classes whose columns have 1; None if no column has a value.

        -1 is no value either: test sets have it where an example was not labelled. Raises
        `UserError` if only some columns have a value, and for other values than 0 and 1.
        """
        if not self.required and not any(column in row.values for column in self.classes):
            return None
        values = {column: row.value(column) for column in self.classes}
        known = [column for column, value in values.items() if not _is_unknown(value)]
        if not known:
            return None
        check(
            len(known) == len(values),
            where=row.where,
            found=f"values in {len(known)} of the {len(values)} label columns",
            expected="0 or 1 in all of them, or a value in none",
        )
        names = []
        for column, value in values.items():
            bit = bit_of(value)
            if bit is None:
                raise mismatch(
                    where=f"{row.where}, {column}",
                    found=repr(value)[:80],
                    expected="0 or 1, as finetune.label_columns are columns of one class each",
                )
            if bit:
                names.append(column)
        return tuple(names)

    def check_no_header(self) -> None:
        """Do nothing: the cells of a header are not 0 and 1, and were refused."""


def _is_unknown(value: object) -> bool:
    return is_missing(value) or str(value).strip() in UNKNOWN
