import dataclasses
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, DataConfig, from_dict, to_dict
from bertjax.config.sql_source import SqlSource, parse_sql_source, without_password
from bertjax.errors import UserError

# No surrogates, which have no UTF-8.
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
raw = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=12)


def parsed(name, **changes):
    """Check that `name` has these parts, and no others."""
    empty = SqlSource("postgresql", "", None, None, None, None, None, {})
    assert parse_sql_source(name) == dataclasses.replace(empty, **changes)


@given(text, text, text, text)
def test_encoded_parts_come_back_whatever_they_hold(user, password, database, table):
    parts = [quote(part, safe="") for part in (user, password, database)]
    # A dot that is not encoded divides schema and table.
    encoded = quote(table, safe="").replace(".", "%2E")
    parsed(
        "sql:postgresql://{}:{}@h:5/{}?table={}".format(*parts, encoded),
        user=user, password=password, host="h", port=5, database=database, table=table,
    )  # fmt: skip


@given(text)
def test_a_password_is_in_no_name_that_is_written(password):
    rest = "@h/d?sslmode=require&query=SELECT text FROM t"
    with_password = f"sql:postgresql://u:{quote(password, safe='')}{rest}"
    assert without_password(with_password) == f"sql:postgresql://u{rest}"
    as_option = f"sql:postgresql://u@h/d?password={quote_plus(password)}&{rest[5:]}"
    assert without_password(as_option) == f"sql:postgresql://u{rest}"


@given(raw, st.sampled_from(["table=t", "query=SELECT text FROM t", ""]))
def test_a_password_that_is_not_encoded_is_understood_or_refused_without_a_trace(password, rest):
    name = f"sql:postgresql://u:{password}@h/d?{rest}"
    # A query's beginning inside a password would be cut there.
    if "query=" in password:
        return
    assert without_password(name) == f"sql:postgresql://u@h/d?{rest}"
    try:
        source, message = parse_sql_source(name), ""
    except UserError as error:
        source, message = None, str(error)
    assert password not in message or password in "sql:postgresql://u@h/d?query=SELECT"
    if source:
        assert (source.user, source.host, source.database) == ("u", "h", "d")
        assert "%" in password or source.password == password


@pytest.mark.parametrize("port", ["0", "65536", "9" * 40, "9" * 5000])
def test_a_port_that_cannot_be_is_refused(port):
    with pytest.raises(UserError, match="found a host that cannot be read"):
        parse_sql_source(f"sql:postgresql://h:{port}/d?table=t")
    assert parse_sql_source("sql:postgresql://h:00005/d?table=t").port == 5


def test_a_password_in_the_place_of_the_port_is_not_shown():
    for name in (
        "sql:postgresql://u:secret",
        "sql:postgresql://u:secret/d?table=t",
        "sql:pg:secret@h/d?table=t",
    ):
        with pytest.raises(UserError) as caught:
            parse_sql_source(name)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", [
    "a/b.txt", "tfds:wiki", "s3://bucket/a:b@c.txt", "sql:sqlite:////a/b.db?table=t",
    "sql:postgresql://u@[::1]:5/d?options=-c%20x&query=SELECT 'a:b@c' AS text", "sql:mysql://h:5/d?table=t",
])  # fmt: skip
def test_a_name_without_password_stays_as_it_is(name):
    assert without_password(name) == name


def test_a_url_without_its_prefix_shows_no_password_either():
    assert without_password("postgresql://u:secret@h/d") == "postgresql://u@h/d"


@pytest.mark.parametrize("url,parts", [
    ("postgresql+psycopg:///d", {"driver": "psycopg", "database": "d"}),
    ("postgresql://h", {"host": "h"}),
    ("postgresql://[::1]:5432/d", {"host": "::1", "port": 5432, "database": "d"}),
    ("postgresql://u:@h", {"user": "u", "password": "", "host": "h"}),
    ("postgresql://u:a:b@h", {"user": "u", "password": "a:b", "host": "h"}),
])  # fmt: skip
def test_parts_of_a_url(url, parts):
    parsed(f"sql:{url}?table=t", table="t", **parts)
    parsed(f"sql:{url}?query=SELECT text FROM t", query="SELECT text FROM t", **parts)


def test_options_of_the_driver_stand_before_the_query():
    parsed(
        "sql:postgresql://h/d?sslmode=require&options=-c%20a&options=x+y&query=SELECT a?b FROM t&c",
        host="h", database="d", options={"sslmode": ("require",), "options": ("-c a", "x y")},
        query="SELECT a?b FROM t&c",
    )  # fmt: skip


def test_a_table_may_have_a_schema_and_a_column_of_another_name():
    parsed("sql:postgresql://h/d?table=s.t&column=Long+text", host="h", database="d",
           schema="s", table="t", column="Long text")  # fmt: skip
    parsed("sql:postgresql://h/d?table=a%2Eb", host="h", database="d", table="a.b")


QUERY = "SELECT text FROM docs WHERE n % 2 = 1 AND text LIKE '%ab%20%' AND a + b > 3 -- été"


@pytest.mark.parametrize(
    "written", [QUERY, quote(QUERY), quote_plus(QUERY), quote(QUERY, safe="+"), f" {QUERY} "]
)
def test_a_query_may_be_percent_encoded_or_not(written):
    assert parse_sql_source(f"sql:sqlite:///a.db?query={written}").query == QUERY


@pytest.mark.parametrize("query", [
    "SELECT ';' AS text", 'select ";" from t', "SELECT 1 -- ; what\n", "SELECT /* ; */ text FROM t",
    "(SELECT text FROM a) UNION (SELECT text FROM b)", "WITH a AS (SELECT 1) SELECT text FROM a", "/* a */ SELECT 1",
    "SELECT $x$;$x$ AS text", "SELECT 'it''s; fine' AS text", "SELECT text FROM t WHERE NOT delete",
])  # fmt: skip
def test_a_single_select_is_taken(query):
    assert parse_sql_source(f"sql:postgresql:///d?query={query}").query == query.strip()
    assert parse_sql_source(f"sql:postgresql:///d?query={query} ; ").query == query.strip()


@pytest.mark.parametrize("query,found", [
    ("DELETE FROM t", "'DELETE'"), ("SELECT 1; DROP TABLE t", "semicolon"), ("", "no query"), (" ; ", "begins with ''"),
    (r"SELECT '\'; DROP TABLE t; --'", "semicolon"), ("/*! DELETE FROM t */ SELECT 1", "begins with ''"),
    ("SELECT 1 -- x\n; DROP TABLE t", "semicolon"), ("EXPLAIN SELECT 1", "'EXPLAIN'"),
    ("SELECT%ff", "not UTF-8"), ("SELECT", "nothing behind SELECT, expected a whole query .*in quotes"),
])  # fmt: skip
def test_another_statement_or_a_second_one_is_refused(query, found):
    with pytest.raises(UserError, match=found) as caught:
        parse_sql_source(f"sql:postgresql://u:secret@h/d?query={query}")
    assert "secret" not in str(caught.value)


def test_where_no_transaction_is_read_only_words_that_write_are_refused():
    name = "sql:mssql://h/d?query=WITH a AS (SELECT 1 AS b) INSERT INTO t SELECT b FROM a"
    with pytest.raises(UserError, match="found INSERT in the query"):
        parse_sql_source(name)
    assert parse_sql_source("sql:mssql://h/d?query=SELECT 'into' AS text, [updated] FROM t").query


@pytest.mark.parametrize("name,message", [
    ("sql:", "found no URL of a database"),
    ("sql:host=h password=secret", "found no URL of a database"),
    ("sql:postgresql://u:secret@h/d", "found neither query= nor table="),
    ("sql:postgresql://u:secret@h/d?table=t&query=SELECT 1", "or a table beside it"),
    ("sql:postgresql://u:secret@h:x/d?table=t", "found a host that cannot be read"),
    ("sql:postgresql://u:secret@h:70000/d?table=t", "found a host that cannot be read"),
    ("sql:postgresql://u:secret@::1/d?table=t", "an IPv6 address in brackets"),
    ("sql:postgresql://u:secret@h/d?table=s.", "found a dot at an end"),
    ("sql:postgresql://u:secret@h/d?sslmode&table=t", "found an option without a value"),
    ("sql:postgresql://u:%ffsecret@h/d?table=t", "not UTF-8"),
    # A byte that is not UTF-8, as Python gives it from a command line.
    ("sql:postgresql://u:secret@h/d?query=SELECT '\udce9'", "found bytes that are not UTF-8"),
    ("sql:postgresql://u:\udce9secret@h/d?table=t", "found bytes that are not UTF-8"),
])  # fmt: skip
def test_a_configuration_names_what_is_wrong_with_a_source_in_one_line(name, message):
    with pytest.raises(UserError, match=message) as caught:
        DataConfig(corpus=("a.txt", name))
    assert str(caught.value).startswith("data.corpus sql")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_written_configuration_has_no_password_and_can_be_read():
    config = Config().replace(data={"corpus": ("a.txt", "sql:postgresql://u:secret@h/d?table=t")})
    written = json.dumps(to_dict(config))
    assert "secret" not in written
    again = from_dict(Config, json.loads(written))
    assert again.data.corpus == ("a.txt", "sql:postgresql://u@h/d?table=t")
    assert "secret" not in repr(parse_sql_source(config.data.corpus[1]))


def test_a_corpus_that_is_no_list_is_refused_without_its_password():
    with pytest.raises(UserError, match="expected a list") as caught:
        Config().replace(data={"corpus": "sql:postgresql://u:secret@h/d?table=t"})
    assert "secret" not in str(caught.value)
