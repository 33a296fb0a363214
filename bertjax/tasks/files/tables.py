"""Reading of tables (TSV, CSV, JSON, Parquet, XML of RTE), row by row with the place of each."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

from etils import epath

from bertjax.errors import check
from bertjax.storage import is_compressed
from bertjax.tasks.files.cells import split_csv, split_tsv, with_columns
from bertjax.tasks.files.json_rows import read_json_rows
from bertjax.tasks.files.label_text import read_label_text
from bertjax.tasks.files.lines import UTF8
from bertjax.tasks.files.parquet_rows import read_parquet_rows
from bertjax.tasks.files.row import TableRow, listed
from bertjax.tasks.files.rte import read_rte

FileForm = Literal["table", "label_text"]
"""Forms of files, the values of `finetune.file_form`."""


def read_table(
    path: epath.PathLike,
    columns: Sequence[str] = (),
    header_has: Sequence[str] = (),
    ragged: Counter[str] | None = None,
    *,
    encoding: str = UTF8,
    form: FileForm = "table",
    labels: Sequence[str] = (),
) -> Iterator[TableRow]:
    """Yield the rows of a file, whose ending gives the format; empty lines are left out.

    If `form` is `label_text`, each line is a label, a space and a text, whatever the ending is
    (`read_label_text`). For the form `table` the endings are:

    - `.tsv`, `.txt`: each line is a row, and tabs separate its columns. Quotes are ordinary text,
      as in GLUE's files.
    - `.csv`: read by the csv module with the quoting of RFC 4180. A quoted value may contain commas
      and line ends.
    - `.jsonl`, `.ndjson`, `.json`: each line is a JSON object, and its fields are the columns. Or
      the whole file is an array of such objects, or an object with this array in `data`.
    - `.parquet`: the columns of the file. Classes have the names that `datasets` stored with them.
    - `.xml`: pairs of the RTE challenges. The columns are `id`, `sentence1`, `sentence2`, `task`
      and `label` (`entailment` or `not_entailment`; None if the pair has no label).

    The file may be compressed, but not Parquet; then .gz, .bz2, .xz or .zst follows the ending.
    `encoding` is that of the text, except in Parquet and XML, which say their own. A byte order
    mark is skipped.

    In TSV and CSV the first line has the names of the columns, unless `columns` is given. Even
    then, a first line is a header if it has all of `header_has` among its cells, or if it has the
    names of `columns` in their order. Later lines that repeat the names are left out, and the log
    counts them. `labels` are possible names of the column of classes, which tells such lines from
    examples (`ColumnNames.is_header`). If `ragged` is given, rows with a wrong number of columns
    are left out, and `ragged` counts them by file.

    Raises `UserError`, with file and line, for a wrong number of columns and for invalid UTF-8,
    CSV, JSON, Parquet or XML. Raises `UserError` also for a file that is missing or has another
    ending.
    """
    name = str(path)
    ending = ending_of(path)
    if form == "label_text":
        yield from read_label_text(name, encoding)
        return
    check(
        ending in ENDINGS,
        where=name,
        found=f"the ending {ending!r}",
        expected=f"one of {listed(ENDINGS)}",
    )
    if ending in SPLITTERS:
        read = partial(SPLITTERS[ending], name, encoding)
        yield from with_columns(name, read, columns, header_has, ragged, labels)
    elif ending in TEXT_READERS:
        yield from TEXT_READERS[ending](name, encoding)
    else:
        yield from READERS[ending](name)


def ending_of(path: epath.PathLike) -> str:
    """Return the ending that gives the format, in small letters, without one of a compression."""
    plain = epath.Path(path)
    if is_compressed(str(path)):
        plain = plain.with_suffix("")
    return plain.suffix.lower()


def has_named_fields(path: epath.PathLike) -> bool:
    """Return whether a file's ending is that of a format whose rows name their fields.

    Their values may be lists, as the words and tags of a sentence are in JSON and Parquet.
    """
    return ending_of(path) in (*TEXT_READERS, *READERS)


SPLITTERS = {".tsv": split_tsv, ".txt": split_tsv, ".csv": split_csv}
"""By ending, the readers of formats whose lines are lists of cells."""
TEXT_READERS = {".jsonl": read_json_rows, ".ndjson": read_json_rows, ".json": read_json_rows}
"""By ending, the readers of texts in which each row names its columns."""
READERS = {".parquet": read_parquet_rows, ".xml": read_rte}
"""By ending, the readers of formats that say their encoding; each row names its columns."""
ENDINGS = (*SPLITTERS, *TEXT_READERS, *READERS)
