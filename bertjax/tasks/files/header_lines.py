"""Rows of a table that may be no examples but a header of other names, told by their cells."""

import re
from collections.abc import Sequence

from bertjax.errors import UserError, mismatch
from bertjax.tasks.files.column_names import folded_name
from bertjax.tasks.files.row import TableRow, listed
from bertjax.tasks.files.tables import has_named_fields

DEFAULT_TEXT_NAMES = frozenset(("text", "sentence", "sentence1", "sentence2"))
"""Names of the columns of texts that are found without an option."""
TEXT_NAMES = DEFAULT_TEXT_NAMES | frozenset((
    "texts", "text1", "text2", "text_a", "text_b", "sentences", "premise", "hypothesis", "question",
    "question1", "question2", "query", "context", "passage", "document", "content", "body",
    "message", "comment", "review", "tweet", "post", "title", "headline", "abstract", "utterance",
    "input",
))  # fmt: skip
"""Usual names of the columns of texts."""
LABEL_NAMES = frozenset((
    "label", "labels", "label_name", "label_text", "gold_label", "gold", "class", "classes",
    "category", "categories", "target", "tag", "tags", "sentiment", "polarity", "score", "rating",
    "stars", "stance", "intent", "emotion", "topic", "quality",
))  # fmt: skip
"""Usual names of the column of labels."""
RARE_CLASSES = frozenset(
    ("label", "labels", "gold_label", "class", "classes", "category", "categories")
)
"""Those of them that few data sets have as a class."""
IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
"""A name as programs write it. Texts of one word often begin with a capital, as `Name` does."""


def may_be_header(row: TableRow, texts: Sequence[str], label_column: str) -> bool:
    """Return whether a row's cells are names of columns; it is a header if no other has its label.

    `texts` are the columns of its texts; `label_column` is empty if there are no labels. The first
    line may have any usual names, and beside its label column's own name any text that looks like a
    name. A line in the middle is a header only with two usual names of texts, or with one that most
    tables have: title and topic may be a text and its class.
    """
    if row.unit != "line" or has_named_fields(row.file):
        return False
    # The number of an example: no header has one.
    if any(str(value).strip().isdecimal() for value in row.values.values()):
        return False
    cells = [str(row.values.get(column, "")) for column in texts]
    names = set(map(folded_name, cells))
    label = folded_name(str(row.values.get(label_column, "")))
    if row.number > 1:
        certain = DEFAULT_TEXT_NAMES if len(texts) == 1 else TEXT_NAMES
        return label in RARE_CLASSES and names <= certain
    are_usual = names <= TEXT_NAMES | set(map(folded_name, texts))
    own_name = folded_name(label_column)
    if label == own_name and label in RARE_CLASSES:
        return are_usual or all(IDENTIFIER.fullmatch(cell.strip(" \"'")) for cell in cells)
    return are_usual and (not label_column or label == own_name or label in LABEL_NAMES)


def header_found(row: TableRow) -> UserError:
    """Return the error for a row that is a header."""
    return mismatch(
        where=row.where,
        found=f"a header, with the columns {listed(row.values.values())}",
        expected=f"an example with the columns {listed(row.values)}; a file has its header in its"
        " first line, and finetune.columns is for files without one",
    )
