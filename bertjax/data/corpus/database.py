"""Texts of a database: the rows of a `sql:` source, streamed by a cursor of the server.

The transaction can only read, where the dialect has such transactions, and is rolled back at the
end. No message has a password in it. Drivers quote connection strings, so errors of theirs are
quoted without the secrets, and never chained (`from None`), since a traceback shows a whole chain.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

from bertjax.config import DataConfig
from bertjax.config.sql_source import SqlSource, parse_sql_source, without_password
from bertjax.data.corpus.formats.decoding import decode, not_utf8, without_surrogates
from bertjax.errors import UserError, check, mismatch, nearest, needs_extra, one_line

# A row is a document. A driver that streams holds this many, and asks the server once for them.
ROWS_AT_ONCE = 256

_DEFAULT_DRIVERS = {"postgresql": "psycopg"}  # SQLAlchemy 2.0 would take psycopg2
# Where a driver's module and its package have different names.
_PACKAGES = {"psycopg": "'bertjax[sql]'", "MySQLdb": "mysqlclient"}
_OTHER_PASSWORDS = {
    "postgresql": ", or in PGPASSWORD or ~/.pgpass",
    "mysql": ", or in a file, ?read_default_file=PATH",
    "mariadb": ", or in a file, ?read_default_file=PATH",
}
_READ_ONLY_STATEMENTS = {
    "sqlite": "PRAGMA query_only = ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
# Passwords that drivers take from the environment.
_SECRET_VARIABLES = ("PGPASSWORD", "MYSQL_PWD")


def check_source(name: str, config: DataConfig) -> None:
    """Raise `UserError` unless the database of a `sql:` source answers and has the table, if named.

    A query is not tried: it may take as long as all its rows.
    """
    source, where = parse_sql_source(name), _where(name)
    with _connected(source, where) as connection:
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
    with _connected(source, where) as connection:
        _set_text_decoding(connection, config)
        with _database_errors(f"{where}: the query is refused", source):
            result = _execute(connection, source, column)
        with contextlib.closing(result):
            position = _text_column(result, column, where)
            # With the number: the option `yield_per` alone has no effect on a query that is text,
            # and all rows would come at once (SQLAlchemy 2.1, `_setup_result_proxy`).
            batches = result.partitions(ROWS_AT_ONCE)
            while True:
                what = f"{where}: broke off after {done:,} rows, the same command begins it again"
                with _database_errors(what, source):
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


@contextlib.contextmanager
def _connected(source: SqlSource, where: str) -> Iterator[Any]:
    """Yield a connection of SQLAlchemy in a transaction that only reads."""
    with needs_extra("sql"):
        import sqlalchemy
    # Of a broken connection it also logs, with a traceback, that it cannot be closed.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    _check_sqlite_file(source, where)
    engine = _engine(source, where)
    try:
        connection = engine.connect()
    # Of any type: a driver may take an unknown option for a wrong argument.
    except Exception as error:
        raise UserError(
            f"{where}: cannot be connected to ({_reason(error, source)}), expected a server that"
            " answers, and a user, a password and a database that it knows (the password"
            f" percent-encoded in the URL{_OTHER_PASSWORDS.get(source.dialect, '')})"
        ) from None
    try:
        with _database_errors(f"{where}: no transaction can begin", source):
            _set_read_only(connection)
        yield connection
    finally:
        # Where the server is gone, this fails too, and what is told is why it is gone.
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            connection.close()
        engine.dispose()


def _engine(source: SqlSource, where: str) -> Any:
    import sqlalchemy
    from sqlalchemy import dialects
    from sqlalchemy.exc import NoSuchModuleError, SAWarning

    driver = source.driver or _DEFAULT_DRIVERS.get(source.dialect, "")
    options: dict[str, Any] = {
        key: values if len(values) > 1 else values[0] for key, values in source.options.items()
    }
    url = sqlalchemy.URL.create(
        f"{source.dialect}+{driver}" if driver else source.dialect,
        username=source.user,
        password=source.password,
        host=source.host,
        port=source.port,
        database=source.database,
        query=options,
    )
    try:
        with warnings.catch_warnings():
            # Such as for an option that the driver would ignore.
            warnings.simplefilter("error", SAWarning)
            # One connection is made, and closed at the end: nothing is to be pooled.
            engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    except NoSuchModuleError:
        raise mismatch(
            where=where,
            found=f"the dialect {url.drivername}",
            expected=f"one that SQLAlchemy has{nearest(source.dialect, dialects.__all__)}",
        ) from None
    except ImportError as error:
        module = str(error.name or driver)
        package = _PACKAGES.get(driver) or _PACKAGES.get(module, module)
        raise mismatch(
            where=where,
            found=f"no driver for it ({_reason(error, source)})",
            expected=f"it to be installed: pip install {package}",
        ) from None
    except Exception as error:
        raise UserError(f"{where}: is no URL for SQLAlchemy ({_reason(error, source)})") from None
    check(
        not engine.dialect.is_async,
        where=where,
        found=f"the driver {engine.dialect.driver}, which is for asyncio",
        expected="one that is not, such as postgresql+psycopg",
    )
    return engine


def _check_sqlite_file(source: SqlSource, where: str) -> None:
    """Raise `UserError` where SQLite would make an empty database."""
    if source.dialect != "sqlite" or "uri" in source.options:
        return
    file = source.database or ":memory:"
    check(
        os.path.isfile(file),
        where=where,
        found=f"no file {file}",
        expected="a database (sqlite:///RELATIVE/PATH, or sqlite:////ABSOLUTE/PATH)",
    )


def _set_read_only(connection: Any) -> None:
    name = connection.dialect.name
    if name == "postgresql":
        connection.execution_options(postgresql_readonly=True)
    elif name in _READ_ONLY_STATEMENTS:
        connection.exec_driver_sql(_READ_ONLY_STATEMENTS[name])
        # It holds from the next transaction.
        connection.rollback()


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
        _database_errors(f"{where}: the table cannot be looked into", source),
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


@contextlib.contextmanager
def _database_errors(what: str, source: SqlSource) -> Iterator[None]:
    """Turn an error of the database in the block into a `UserError` that begins with `what`."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except UnicodeDecodeError as error:
        raise not_utf8(error, what) from None
    # OSError: a driver may let one of its socket through.
    except (SQLAlchemyError, OSError) as error:
        raise UserError(f"{what} ({_reason(error, source)})") from None


def _reason(error: Exception, source: SqlSource) -> str:
    """Return on one line what the driver says, without passwords."""
    # SQLAlchemy adds the statement and a link, PostgreSQL the line with the mistake.
    text = one_line(str(getattr(error, "orig", None) or error).partition("\nLINE ")[0], None)
    secrets = [*source.secrets, *(os.environ.get(name, "") for name in _SECRET_VARIABLES)]
    for secret in filter(None, secrets):
        for form in (secret, repr(secret)[1:-1], quote(secret, safe=""), quote_plus(secret)):
            text = text.replace(form, "***")
    # Only now: a cut may leave half of a password, which no longer is found.
    return text[:300]
