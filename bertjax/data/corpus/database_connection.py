"""Connection to the database of a `sql:` source.

The transaction can only read, where the dialect has such transactions, and is rolled back at the
end. No message has a password in it. Drivers quote connection strings, so errors of theirs are
quoted without the secrets, and never chained (`from None`), since a traceback shows a whole chain.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from bertjax.config.sql_source import SqlSource
from bertjax.data.corpus.formats.decoding import not_utf8
from bertjax.errors import UserError, check, mismatch, nearest, needs_extra, one_line

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


@contextlib.contextmanager
def connected(source: SqlSource, where: str) -> Iterator[Any]:
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
        with database_errors(f"{where}: no transaction can begin", source):
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


@contextlib.contextmanager
def database_errors(what: str, source: SqlSource) -> Iterator[None]:
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
