"""Tagged sentences in tables with lists of words and tags, as in TFDS, JSON and Parquet."""

from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from bertjax.errors import check, mismatch
from bertjax.number_text import whole_number
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.files.row import TableRow

TOKEN_FIELDS = ("tokens", "words")
TAG_FIELDS = ("ner", "ner_tags", "tags")


def tagged_rows(
    table_rows: Iterable[TableRow],
    *,
    token_field: str = "",
    tag_field: str = "",
    tags: bool = True,
    names: Sequence[str] = (),
    numbers_are_tags: bool = False,
) -> list[TaggedExample]:
    """Return the sentences of table rows with lists of words and tags.

    The words are in `token_field`, by default in `tokens` or `words`. The tags are in `tag_field`,
    by default the first of `ner`, `ner_tags` and `tags` that the row has. The id is FILE:NUMBER.
    Tags may be numbers, as text or not: `names` has the name of each, from 0. Without names they
    are refused, unless `numbers_are_tags`: then the number is the tag.

    Raises `UserError` with the row if these are not lists of strings (or numbers) or have different
    lengths, and if rows have their tags in different fields.
    """
    examples = []
    first_field = tag_field
    for row in table_rows:
        words = _words(row, token_field or _field(row, TOKEN_FIELDS))
        own_tags = None
        if tags:
            field = tag_field or _field(row, TAG_FIELDS)
            first_field = first_field or field
            check(
                # Tags of two fields could be two kinds of tags.
                field == first_field,
                where=row.where,
                found=f"the tags in {field}",
                expected=f"{first_field}, as in the rows before (or finetune.label_column)",
            )
            own_tags = _tags(row, field, names, numbers_are_tags)
            check(
                len(own_tags) == len(words),
                where=row.where,
                found=f"{len(own_tags)} tags",
                expected=f"{len(words)}, as many as there are words",
            )
        identifier = f"{epath.Path(row.file).name}:{row.number}"
        examples.append(TaggedExample(identifier, words, own_tags))
    return examples


def _field(row: TableRow, names: Sequence[str]) -> str:
    """Return the first of `names` that the row has; `names[0]` if it has none of them."""
    return next((name for name in names if name in row.values), names[0])


def _words(row: TableRow, name: str) -> tuple[str, ...]:
    values = row.value(name)
    check(
        isinstance(values, list) and all(isinstance(value, str) for value in values),
        where=f"{row.where}, {name}",
        found=repr(values)[:80],
        expected="a list of strings",
    )
    return tuple(values)


def _tags(
    row: TableRow, name: str, names: Sequence[str], numbers_are_tags: bool
) -> tuple[str, ...]:
    values = row.value(name)
    where = f"{row.where}, {name}"
    is_list = isinstance(values, list)
    check(
        is_list and all(isinstance(value, str) or _is_number(value) for value in values),
        where=where,
        found=repr(values)[:80],
        expected="a list of strings, or of whole numbers",
    )
    if not names and not numbers_are_tags:
        check(
            not any(_is_number(value) or str(value).isdecimal() for value in values),
            where=where,
            found=f"numbers ({repr(values)[:60]})",
            expected="the names of the tags, or those of the numbers in finetune.label_names"
            " (or finetune.metric accuracy, which needs no names)",
        )
    return tuple(named_tag(value, names, where) for value in values)


def _is_number(value: Any) -> bool:
    # bool is a subclass of int, but true is no tag. Tables of floats have 3.0.
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def named_tag(tag: str | float, names: Sequence[str], where: str) -> str:
    """Return the name of a tag that is a number, as text or not; a tag in `names` as it is.

    Without `names` it is the tag's text. Raises `UserError` for a number without a name.
    """
    text = tag if isinstance(tag, str) else str(int(tag))
    if not names or text in names:
        return text
    number = whole_number(text) if text.isdecimal() else None
    if number is None or number >= len(names):
        raise mismatch(
            where=where,
            found=f"the tag {text[:80]}",
            expected=f"a number from 0 to {len(names) - 1}, or one of the names in"
            " finetune.label_names",
        )
    return names[number]
