"""Lines of a table that are no examples but a header, told by their cells."""

from collections.abc import Sequence

from bertjax.errors import check
from bertjax.tasks.files.cells import folded_name
from bertjax.tasks.files.row import TableRow, listed
from bertjax.tasks.files.tables import has_named_fields

TEXT_NAMES = frozenset((
    "text", "texts", "text1", "text2", "text_a", "text_b", "sentence", "sentence1", "sentence2",
    "sentences", "premise", "hypothesis", "question", "question1", "question2", "query", "context",
    "passage", "document", "content", "body", "message", "comment", "review", "tweet", "post",
    "title", "headline", "abstract", "utterance", "input",
))  # fmt: skip
"""Usual names of the columns of texts."""
LABEL_NAMES = frozenset((
    "label", "labels", "label_name", "label_text", "gold_label", "gold", "class", "classes",
    "category", "categories", "target", "tag", "tags", "sentiment", "polarity", "score", "rating",
    "stars", "stance", "intent", "emotion", "topic", "quality",
))  # fmt: skip
"""Usual names of the column of labels."""
NO_CLASSES = frozenset(
    ("label", "labels", "gold_label", "class", "classes", "category", "categories")
)
"""Those of them that no class has where its column has the same name."""


def check_no_header(row: TableRow, texts: Sequence[str], label_column: str) -> None:
    """Raise `UserError` for a row whose cells are names of columns: it would be an example.

    `texts` are the columns of its texts; `label_column` is empty if there are no labels. A label
    that is the name of its own column shows a header; other names do so beside texts that are names
    too, since a column `spam` may have the class spam.
    """
    if row.unit != "line" or has_named_fields(row.file):
        return
    has_names = all(_is_name(row, column, TEXT_NAMES) for column in texts)
    if label_column:
        label = folded_name(str(row.values.get(label_column, "")))
        is_own_name = label == folded_name(label_column) and label in NO_CLASSES
        has_names = is_own_name or (has_names and _is_name(row, label_column, LABEL_NAMES))
    check(
        not has_names,
        where=row.where,
        found=f"a header, with the columns {listed(row.values.values())}",
        expected=f"an example with the columns {listed(row.values)}; a file has its header in its"
        " first line, and finetune.columns is for files without one",
    )


def _is_name(row: TableRow, column: str, names: frozenset[str]) -> bool:
    """Return whether a cell is the name of its column, or another usual one."""
    cell = folded_name(str(row.values.get(column, "")))
    return cell in names or cell == folded_name(column)
