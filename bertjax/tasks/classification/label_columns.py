"""Labels in several columns: one of 0 and 1 for each class."""

from dataclasses import dataclass

from bertjax.errors import check, mismatch
from bertjax.tasks.classification.label_lists import UNKNOWN, bit_of
from bertjax.tasks.files.missing import is_missing
from bertjax.tasks.files.row import TableRow


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


def _is_unknown(value: object) -> bool:
    return is_missing(value) or str(value).strip() in UNKNOWN
