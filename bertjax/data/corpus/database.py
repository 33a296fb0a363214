"""Texts of a database: the rows of a `sql:` source, streamed by a cursor of the server.

As in `database_connection`, no message has a password in it, and no error is chained.
"""

import contextlib
import warnings
from collections.abc import Generator, Sequence
from typing import Any

from bertjax.config import DataConfig
from bertjax.config.sql_source import SqlSource, parse_sql_source, without_password
from bertjax.data.corpus.database_connection import connected, database_errors
from bertjax.data.corpus.formats.decoding import decode, without_surrogates
from bertjax.errors import check, mismatch, nearest, one_line

# A row is a document. A driver that streams holds this many, and asks the server once for them.
ROWS_AT_ONCE = 256


def check_source(name: str, config: DataConfig) -> None:
    """Raise `UserError` unless the database of a `sql:` source answers and has the table, if named.

    A query is not tried: it may take as long as all its rows.
    """
    source, where = parse_sql_source(name), _where(name)
    with connected(source, where) as connection:
        if source.table:
            _check_table(connection, source, source.column or config.text_field, where)


def stream_texts(name: str, config: DataConfig) -> Generator[list[str | None], None, None]:
    """Yield the texts of a `sql:` source, up to `ROWS_AT_ONCE` at a time; None for NULL.

    Raises `UserError` for a database that does not answer, a query that it refuses, and a value
    that is no text.
    """
    source, where = parse_sql_source(name), _where(name)
    column = source.column or config.text_field
    done = 0
    with connected(source, where) as connection:
        _set_text_decoding(connection, config)
        with database_errors(f"{where}: the query is refused", source):
            result = _execute(connection, source, column)
        with contextlib.closing(result):
            position = _text_column(result, column, where)
            # With the number: the option `yield_per` alone has no effect on a query that is text,
            # and all rows would come at once (SQLAlchemy 2.1, `_setup_result_proxy`).
            batches = result.partitions(ROWS_AT_ONCE)
            while True:
                what = f"{where}: broke off after {done:,} rows, the same command begins it again"
                with database_errors(what, source):
                    rows = next(batches, None)
                if rows is None:
                    return
                texts = []
                for row in rows:
                    done += 1
                    texts.append(_text(row[position], config, f"{where}, row {done}, {column}"))
                yield texts


def _where(name: str) -> str:
    return f"data.corpus {one_line(without_password(name))}"


def _set_text_decoding(connection: Any, config: DataConfig) -> None:
    if connection.dialect.name == "sqlite":
        # SQLite does not check that text is UTF-8, unlike other databases.
        connection.connection.driver_connection.text_factory = lambda raw: raw.decode(
            "utf-8", config.encoding_errors
        )


def _execute(connection: Any, source: SqlSource, column: str) -> Any:
    import sqlalchemy

    streamed = {"stream_results": True, "yield_per": ROWS_AT_ONCE}
    if source.query:
        # As it is: `text()` would take :name for a parameter, and drivers %s without the option.
        return connection.exec_driver_sql(
            source.query, execution_options={**streamed, "no_parameters": True}
        )
    selected: Any = sqlalchemy.column(column)
    table = sqlalchemy.table(source.table, selected, schema=source.schema)
    return connection.execute(
        sqlalchemy.select(selected).select_from(table), execution_options=streamed
    )


def _check_table(connection: Any, source: SqlSource, column: str, where: str) -> None:
    """Raise `UserError` unless the table has the column.

    SQLite needs this: it takes a quoted name that it does not know for a string.
    """
    import sqlalchemy

    inspector = sqlalchemy.inspect(connection)
    with (
        database_errors(f"{where}: the table cannot be looked into", source),
        warnings.catch_warnings(),
    ):
        # It warns of types that it does not know, and they are not used.
        warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)
        try:
            columns = inspector.get_columns(source.table, schema=source.schema)
        except sqlalchemy.exc.NoSuchTableError:
            others = inspector.get_table_names(schema=source.schema)
            others += inspector.get_view_names(schema=source.schema)
            raise mismatch(
                where=where,
                found=f"no table {source.table}",
                expected=f"a table or view of this name{nearest(source.table, others)}",
            ) from None
    _check_column([each["name"] for each in columns], column, where)


def _text_column(result: Any, column: str, where: str) -> int:
    """Return the position of the column with the text."""
    check(
        result.returns_rows,
        where=where,
        found="a statement without rows",
        expected="a SELECT",
    )
    names = list(result.keys())
    _check_column(names, column, where)
    return names.index(column)


def _check_column(names: Sequence[str], column: str, where: str) -> None:
    check(
        names.count(column) == 1,
        where=where,
        found=f"the columns {one_line(', '.join(names)) or 'none'}",
        expected=f"one column {column!r} (data.text_field; or &column=NAME, or AS {column} in the"
        f" query){nearest(column, names)}",
    )


def _text(value: object, config: DataConfig, where: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        # A driver that decodes JSON may give half a surrogate pair.
        return without_surrogates(value, config, lambda: where)
    # Drivers give the bytes of a binary column as one of these.
    if not isinstance(value, bytes | bytearray | memoryview):
        raise mismatch(
            where=where,
            found=f"a value of type {type(value).__name__}",
            expected="text (CAST it in the query)",
        )
    return decode(bytes(value), config, where)
