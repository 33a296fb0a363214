"""Reading of a split's tagged sentences: CoNLL files, or tables with lists of words and tags."""

import dataclasses
import logging
import re
from collections.abc import Sequence

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.config.finetune import task_parts
from bertjax.errors import check
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.files.splits import find_files, read_rows
from bertjax.tasks.files.tables import has_named_fields
from bertjax.tasks.kind import Entry
from bertjax.tasks.metric_table import chosen_metrics
from bertjax.tasks.tagging.columns import chosen_columns, gives_word, is_conll_u
from bertjax.tasks.tagging.conll import read_conll
from bertjax.tasks.tagging.labels import check_all_entities, check_rules
from bertjax.tasks.tagging.table_rows import named_tag, tagged_rows
from bertjax.tasks.tagging.tag_names import tag_names

log = logging.getLogger("bertjax")


def read_examples(
    entry: Entry, split: str, options: FinetuneConfig, *, labelled: bool
) -> list[TaggedExample]:
    """Return the sentences of a split; if `labelled`, with their tags.

    The tags of the training split must be of entities, or not, together (`check_all_entities`), and
    follow the rules of their scheme (`check_rules`), unless the accuracy over words is chosen. The
    rules are not checked in other splits, as in conlleval.
    """
    names = tag_names(entry.location, options) if labelled else ()
    over_words = chooses_accuracy(entry.name, options)
    if has_lists(entry, split):
        examples = tagged_rows(
            read_rows(entry.location, split),
            token_field=_token_field(options),
            tag_field=options.label_column,
            tags=labelled,
            names=names,
            numbers_are_tags=over_words,
        )
    else:
        examples = []
        for path in find_files(entry.location, split):
            examples += _read_file(path, options, labelled=labelled, names=names)
    if split == "train" and labelled and not over_words:
        check_all_entities(examples)
        check_rules(examples)
    return examples


def has_lists(entry: Entry, split: str) -> bool:
    """Return whether a split holds lists of words and tags, as JSON, Parquet and TFDS do."""
    if entry.location.is_tfds:
        return True
    return any(has_named_fields(path) for path in find_files(entry.location, split))


def chooses_accuracy(name: str, options: FinetuneConfig) -> bool:
    """Return whether the first metric of `finetune.metric` for the task `name` is the accuracy.

    Then tags are those of words. Metrics after the first are computed too, but decide nothing.
    """
    spellings = {}
    for text in options.tasks:
        written = task_parts(text).name
        # Tasks with names of their own may be written in several ways: SST-2 is sst2.
        spellings[re.sub("[-_]", "", written.lower())] = written
        spellings[written] = written
    spellings[name] = name
    return chosen_metrics(options.metric, name, spellings)[:1] == ("accuracy",)


def _token_field(options: FinetuneConfig) -> str:
    if not gives_word(options):
        return ""
    check(
        len(options.text_columns) <= 1,
        where="finetune.text_columns",
        found=", ".join(options.text_columns),
        expected="one field, that of the words",
    )
    return options.text_columns[0]


def _read_file(
    path: epath.Path, options: FinetuneConfig, *, labelled: bool, names: Sequence[str]
) -> list[TaggedExample]:
    columns = chosen_columns(path, options, tags=labelled)
    if columns.numbered and not is_conll_u(path):
        log.info(
            "%s: the first column has the words' numbers, so the words are in column %d from 0%s",
            path,
            columns.word,
            f", the tags in column {columns.tag}" if labelled and columns.tag >= 0 else "",
        )
    examples = read_conll(path, tags=labelled, columns=columns, encoding=options.encoding)
    word = None if gives_word(options) else columns.word
    tag = columns.tag if labelled and not options.label_column else None
    examples = [dataclasses.replace(example, columns=(word, tag)) for example in examples]
    if not names:
        return examples
    return [_with_names(example, names) for example in examples]


def _with_names(example: TaggedExample, names: Sequence[str]) -> TaggedExample:
    where = f"sentence {example.id}"
    tags = tuple(named_tag(tag, names, where) for tag in example.tags or ())
    return dataclasses.replace(example, tags=tags)
