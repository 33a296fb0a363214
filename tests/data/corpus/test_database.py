import gc
import logging
import sqlite3
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from urllib.parse import quote

import pytest

from bertjax.config import DataConfig
from bertjax.data.corpus.database import ROWS_AT_ONCE, check_source, stream_texts
from bertjax.errors import UserError
from tests import postgresql
from tests.postgresql import PASSWORD

pytest.importorskip("sqlalchemy")

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path):
    """A SQLite database with a few tables."""
    path = tmp_path / "a b.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE docs (id INTEGER PRIMARY KEY, text TEXT, body TEXT, "Long name" TEXT);
            INSERT INTO docs VALUES (1, 'One.', 'Eins.', 'I'), (2, NULL, 'Zwei.', 'II'), (3, 'Three: 100 %', 'Drei.', 'III');
            CREATE TABLE "odd.name" (text TEXT);
            INSERT INTO "odd.name" VALUES ('Odd.');
            CREATE VIEW bodies AS SELECT body AS text FROM docs;
            CREATE TABLE numbers (text);
            INSERT INTO numbers VALUES ('a'), (7);
            CREATE TABLE blobs (text);
            INSERT INTO blobs VALUES (CAST('é' AS BLOB)), (x'61ff');
            CREATE TABLE broken (text TEXT);
            INSERT INTO broken VALUES (CAST(x'61ff' AS TEXT));
            """
        )
    connection.close()
    return path


def texts(name, **options):
    config = DataConfig(corpus=(name,), **options)
    check_source(name, config)
    return [text for batch in stream_texts(name, config) for text in batch]


def refusal(name, **options):
    """Return the message with which a source is refused, the source's name left out."""
    with pytest.raises(UserError) as caught:
        texts(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("data.corpus sql")
    return message.partition(": ")[2]


def of(file, rest):
    return f"sql:sqlite:///{quote(str(file))}?{rest}"


@pytest.mark.parametrize("rest,expected", [
    ("table=docs", ["One.", None, "Three: 100 %"]),
    ("table=docs&column=body", ["Eins.", "Zwei.", "Drei."]),
    ("table=docs&column=Long+name", ["I", "II", "III"]),
    ("table=main.docs&column=body", ["Eins.", "Zwei.", "Drei."]),
    ("table=odd%2Ename", ["Odd."]),
    ("table=bodies", ["Eins.", "Zwei.", "Drei."]),
    ("query=SELECT text FROM docs WHERE text LIKE '%100 \\%%' ESCAPE '\\' AND ' :x' = ' :x'", ["Three: 100 %"]),
    ("query=SELECT%20text%20FROM%20docs%20WHERE%20id%20%25%202%20=%201", ["One.", "Three: 100 %"]),
    ("column=body&query=SELECT * FROM docs WHERE id > 2;", ["Drei."]),
    ("query=WITH a AS (SELECT 'x' AS text) SELECT text FROM a -- one", ["x"]),
    ("query=SELECT text FROM docs WHERE id > 9", []),
])  # fmt: skip
def test_rows_of_a_table_or_a_query_are_texts(file, rest, expected):
    assert texts(of(file, rest)) == expected


def test_the_text_column_is_the_configurations(file):
    assert texts(of(file, "table=docs"), text_field="body") == ["Eins.", "Zwei.", "Drei."]


def test_bytes_are_text_as_in_parquet(file):
    message = refusal(of(file, "table=blobs"))
    assert message == (
        "found the byte 0xff, which is not UTF-8, expected UTF-8 (or data.encoding_errors replace)"
    )
    assert texts(of(file, "table=blobs"), encoding_errors="replace") == ["é", "a\ufffd"]
    assert "the byte 0xff, which is not UTF-8" in refusal(of(file, "table=broken"))
    assert texts(of(file, "table=broken"), encoding_errors="replace") == ["a\ufffd"]


@pytest.mark.parametrize("rest,message", [
    ("table=dosc", "found no table dosc, expected a table or view of this name; the nearest is docs"),
    ("table=other.docs", 'the table cannot be looked into (unknown database "other")'),
    ("table=docs&column=txet", "found the columns id, text, body, Long name, expected one column 'txet'"),
    # SQLite takes a quoted name that it does not know for a string.
    ("table=docs&column=Text", "found the columns id, text, body, Long name, expected one column 'Text'"),
    ("query=SELECT text FROM dosc", "the query is refused (no such table: dosc)"),
    ("query=SELECT txet AS text FROM docs", "the query is refused (no such column: txet"),
    ("query=SELECT body FROM docs", "found the columns body, expected one column 'text' (data.text_field; or &column=NAME,"),
    ("query=SELECT body AS text, text FROM docs", "found the columns text, text, expected one column 'text'"),
    ("query=SELECT 1 AS text FROM", "the query is refused (incomplete input)"),
    ("query=WITH a AS (SELECT 1) DELETE FROM docs", "the query is refused (attempt to write a readonly database)"),
    ("table=numbers", "found a value of type int, expected text (CAST it in the query)"),
    ("table=docs&column=id", "found a value of type int, expected text"),
])  # fmt: skip
def test_a_wrong_table_column_query_or_value_is_named(file, rest, message):
    assert message in refusal(of(file, rest))


def test_a_value_that_is_no_text_is_named_by_its_row(file):
    with pytest.raises(UserError, match="numbers, row 2, text: found a value of type int"):
        texts(of(file, "table=numbers"))


def test_a_missing_or_foreign_file_is_named_and_none_is_made(tmp_path):
    assert "found no file" in refusal(of(tmp_path / "none.db", "table=docs"))
    assert "found no file :memory:" in refusal("sql:sqlite://?table=docs")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("Not a database, but text.\n" * 100)
    assert "(file is not a database)" in refusal(of(tmp_path / "text.db", "table=docs"))
    assert "(file is not a database)" in refusal(
        of(tmp_path / "text.db", "query=SELECT text FROM t")
    )


@pytest.mark.parametrize("url,message", [
    ("postgresq://u:secret@h/d", "found the dialect postgresq, expected one that SQLAlchemy has; the nearest is postgresql"),
    ("postgresql+nosuch://u:secret@h/d", "found the dialect postgresql+nosuch, expected one that SQLAlchemy has"),
    ("oracle+oracledb://u:secret@h/d", "found no driver for it (No module named 'oracledb'), expected it to be installed: pip install oracledb"),
    ("mysql://u:secret@h/d", "found no driver for it (No module named 'MySQLdb'), expected it to be installed: pip install mysqlclient"),
    ("postgresql+psycopg_async://u:secret@h/d", "which is for asyncio, expected one that is not"),
    ("postgresql://u:secret@127.0.0.1:1/d", "Connection refused"),
    ("postgresql://u:secret@127.0.0.1:1/d?nosuch=1", 'cannot be connected to (invalid connection option "nosuch")'),
    ("postgresql:///d?host=/no/such/folder", "cannot be connected to (connection"),
])  # fmt: skip
def test_a_wrong_url_or_a_server_that_does_not_answer_is_one_line_without_password(url, message):
    name = f"sql:{url}{'&' if '?' in url else '?'}table=docs"
    assert message in refusal(name)
    with pytest.raises(UserError) as caught:
        texts(name)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_package_names_the_extra(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(UserError, match=r"pip install 'bertjax\[sql\]'"):
        texts(of(file, "table=docs"))


def test_without_the_driver_of_postgresql_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert refusal("sql:postgresql://h/d?table=t").endswith("pip install 'bertjax[sql]'")


@pytest.fixture(scope="module")
def server():
    with postgresql.server() as running:
        with running.connect() as connection:
            connection.execute(
                """
                CREATE TABLE docs (id int PRIMARY KEY, text text, tags jsonb, data bytea, code char(3));
                INSERT INTO docs SELECT i, 'Text ' || i || ' with 100 %.', '{}', 'é', 'a' FROM generate_series(1, 1000) i;
                UPDATE docs SET text = NULL WHERE id = 7;
                CREATE TABLE "Odd.Name" ("The text" text);
                INSERT INTO "Odd.Name" VALUES ('Odd.');
                CREATE SCHEMA other;
                CREATE VIEW other.few AS SELECT text FROM docs WHERE id < 3 ORDER BY id;
                CREATE TABLE parsed (text json);
                INSERT INTO parsed VALUES ('"a é"'), ('"b \\ud800 é"');
                GRANT SELECT ON parsed TO writer;
                CREATE TABLE hidden (text text);
                CREATE SEQUENCE counter;
                GRANT USAGE ON counter TO writer;
                GRANT SELECT, INSERT ON docs, "Odd.Name" TO writer;
                GRANT USAGE ON SCHEMA other TO writer;
                GRANT SELECT ON other.few TO writer;
                """
            )
        yield running


def at(server, rest, password=PASSWORD):
    password = quote(password, safe="")
    return f"sql:postgresql://writer:{password}@127.0.0.1:{server.port}/postgres?{rest}"


@pytest.mark.slow
@pytest.mark.parametrize("rest,count", [
    ("table=docs", 1000),
    ("table=public.docs", 1000),
    ("table=docs&column=code", 1000),
    ("table=docs&column=data", 1000),
    ("table=Odd%2EName&column=The+text", 1),
    ("table=other.few", 2),
    ("connect_timeout=5&sslmode=prefer&query=SELECT text FROM docs WHERE text LIKE '%100 \\%%' AND ' :a' = ' :a'", 999),
    ("query=SELECT%20id::text%20AS%20text%20FROM%20docs%20WHERE%20tags%20@%3E%20'{}'", 1000),
    ("query=SELECT tags::text AS text FROM docs WHERE NOT tags ? 'a'", 1000),
    ("query=WITH a AS (SELECT * FROM docs) SELECT text FROM a WHERE id % 2 = 0 -- and so on", 500),
])  # fmt: skip
def test_postgresql_rows_are_texts(server, rest, count):
    found = texts(at(server, rest))
    assert len(found) == count
    assert all(text is None or isinstance(text, str) for text in found)


@pytest.mark.slow
def test_postgresql_half_a_surrogate_pair_is_refused_or_replaced(server):
    # PostgreSQL keeps JSON as it was written, and the driver decodes it.
    assert "found half a surrogate pair, \\ud800" in refusal(at(server, "table=parsed"))
    assert texts(at(server, "table=parsed"), encoding_errors="replace") == ["a é", "b \ufffd é"]


@pytest.mark.slow
def test_postgresql_a_password_may_come_from_the_environment_or_a_file(
    server, tmp_path, monkeypatch
):
    name = f"sql:postgresql://writer@127.0.0.1:{server.port}/postgres?table=docs"
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    assert "no password supplied" in refusal(name)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert len(texts(name)) == 1000
    monkeypatch.delenv("PGPASSWORD")
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    (tmp_path / "pgpass").write_text(f"127.0.0.1:*:*:writer:{escaped}\n")
    (tmp_path / "pgpass").chmod(0o600)
    assert len(texts(name)) == 1000


@pytest.mark.slow
@pytest.mark.parametrize("rest,message", [
    ("table=dosc", "found no table dosc, expected a table or view of this name; the nearest is docs"),
    ("table=hidden", "permission denied for table hidden"),
    ("table=docs&column=Text", "found the columns id, text, tags, data, code, expected one column 'Text'"),
    ("query=SELECT text FROM dosc", '(relation "dosc" does not exist)'),
    ("query=SELECT txet AS text FROM docs", '(column "txet" does not exist)'),
    ("query=SELECT FROM docs", "found the columns none, expected one column 'text'"),
    ("table=docs&column=id", "found a value of type int, expected text (CAST it in the query)"),
    ("table=docs&column=tags", "found a value of type dict, expected text (CAST it in the query)"),
    ("query=WITH a AS (INSERT INTO docs (id) VALUES (0) RETURNING text) SELECT text FROM a", "must not contain data-modifying"),
    ("query=SELECT text INTO copy FROM docs", "SELECT ... INTO is not allowed here"),
    ("query=SELECT nextval('counter')::text AS text", "cannot execute nextval() in a read-only transaction"),
    ("query=SELECT (1 / (id - 500))::text AS text FROM docs ORDER BY id", "rows, the same command begins it again (division by zero)"),
    ("sslmode=all&table=docs", "invalid sslmode value"),
])  # fmt: skip
def test_postgresql_what_is_wrong_is_one_line(server, rest, message):
    assert message in refusal(at(server, rest))


@pytest.mark.slow
def test_postgresql_a_wrong_password_or_database_is_one_line_without_password(server):
    for name in (
        at(server, "table=docs", "sesame"),
        at(server, "password=sesame&table=docs", "other"),
    ):
        message = refusal(name)
        assert 'password authentication failed for user "writer"' in message
        assert "PGPASSWORD" in message
        assert "sesame" not in message
    message = refusal(at(server, "table=docs").replace("/postgres?", "/none?"))
    assert 'database "none" does not exist' in message


@pytest.mark.slow
def test_postgresql_an_error_that_quotes_the_password_is_told_without_it(server):
    # In place of an option's value, which the driver quotes.
    name = at(server, f"sslmode={quote(PASSWORD, safe='')}&table=docs")
    with pytest.raises(UserError, match='invalid sslmode value: "') as caught:
        list(stream_texts(name, DataConfig(corpus=(name,))))
    shown = "".join(traceback.format_exception(caught.value)).partition("invalid sslmode")[2]
    assert PASSWORD not in shown


@pytest.mark.slow
@pytest.mark.parametrize("rest", ["table=docs", "query=SELECT text FROM docs"])
def test_postgresql_a_connection_that_breaks_is_no_end_of_the_rows(server, rest, caplog):
    batches = stream_texts(at(server, rest), DataConfig(corpus=(at(server, rest),)))
    assert len(next(batches)) == ROWS_AT_ONCE
    with server.connect(autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'writer'"
        )
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(UserError, match="broke off after 256 rows") as caught,
    ):
        list(batches)
    assert "\n" not in str(caught.value)
    # A library without a handler would print it.
    assert not caplog.records


@pytest.mark.slow
def test_postgresql_no_connection_and_no_transaction_is_left(server):
    name = at(server, "table=docs")
    batches = stream_texts(name, DataConfig(corpus=(name,)))
    next(batches)
    with server.connect() as connection:
        count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'writer'"
        assert connection.execute(count).fetchone() == (1,)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            batches.close()
            gc.collect()
        connection.rollback()
        assert connection.execute(count).fetchone() == (0,)


PEAK = """
import resource, sys
from bertjax.config import DataConfig
from bertjax.data.corpus.database import stream_texts
name = sys.argv[1]
rows = 0
for batch in stream_texts(name, DataConfig(corpus=(name,))):
    rows += len(batch)
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(name):
    """Return the rows read, and the largest memory of the process in MB."""
    run = subprocess.run(
        [sys.executable, "-c", PEAK, name], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows, kilobytes = map(int, run.stdout.split())
    return rows, kilobytes / 1024


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_rows(server, tmp_path):
    # 200,000 texts of a kilobyte: 200 MB.
    select = "SELECT repeat(md5(i::text), 32) AS text FROM generate_series(1, {}) i"
    with server.connect() as connection:
        connection.execute(f"CREATE TABLE large AS {select.format(200_000)}")
        connection.execute("GRANT SELECT ON large TO writer")
    few = peak(at(server, "query=" + select.format(1000)))
    for rest in ("table=large", "query=SELECT text FROM large"):
        rows, memory = peak(at(server, rest))
        assert rows == 200_000
        assert memory < few[1] + 20
    path = tmp_path / "large.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE docs (text TEXT)")
        numbers = ((f"{i:032}" * 32,) for i in range(200_000))
        connection.executemany("INSERT INTO docs VALUES (?)", numbers)
    connection.close()
    for rest in ("table=docs", "query=SELECT text FROM docs"):
        rows, memory = peak(of(path, rest))
        assert rows == 200_000
        assert memory < few[1] + 20
