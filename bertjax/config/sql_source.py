"""Grammar of `sql:` sources of a corpus: a database, and a query or a table in it.

    sql:DIALECT[+DRIVER]://[USER[:PASSWORD]@][HOST[:PORT]][/DATABASE]?[OPTION=VALUE&...]query=SELECT
    sql:DIALECT[+DRIVER]://...?[OPTION=VALUE&...]table=[SCHEMA.]TABLE[&column=COLUMN]

The part before `?` is a URL of SQLAlchemy. Passwords leave no trace: `without_password` gives the
form of a name that may be written, and errors of this file quote that form at most.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, unquote_plus

from bertjax.errors import check, mismatch, one_line

PREFIX = "sql:"
READ_ONLY_DIALECTS = ("postgresql", "sqlite")
"""Dialects whose database itself is told to refuse all that writes."""

_FORM = "sql:DIALECT://USER@HOST/DATABASE?query=SELECT ..., or ?table=NAME"
_DIALECT = re.compile(r"([A-Za-z]\w*)(?:\+(\w+))?://", re.ASCII)
_UNDECODED = re.compile("[\ud800-\udfff]")
# What follows belongs to the query. It may hold `&`, `?` and `#`, which SQL has as operators.
_QUERY = re.compile(r"[?&]query=")
_SECRET_OPTION = re.compile(r"pass|pwd|secret|token|credential|odbc_connect|(?<!ssl)key", re.I)
_OWN_OPTIONS = ("table", "column")
# Strings, quoted names and comments: what a keyword or a semicolon means nothing in. `/*!` is no
# comment, because MySQL executes it.
_QUOTED = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | (\$\w*\$).*?\1 | --[^\n]* | /\*(?!!).*?\*/""",
    re.S | re.X,
)
# Where the database refuses no writing, these words are refused outside of quotes.
_WRITES = re.compile(r"\b(insert|update|delete|merge|into)\b", re.I)


@dataclass(frozen=True)
class SqlSource:
    """A `sql:` source, all parts decoded. Either `query` or `table` is set."""

    dialect: str
    driver: str
    """Name of the driver in SQLAlchemy; empty: the dialect's default."""
    user: str | None
    # Not shown, so that no traceback or log has it.
    password: str | None = field(repr=False)
    host: str | None
    port: int | None
    database: str | None
    options: Mapping[str, tuple[str, ...]] = field(repr=False)
    """Options of the driver; one that is given several times has several values."""
    query: str = ""
    """The SELECT, without a semicolon at its end."""
    schema: str | None = None
    table: str = ""
    column: str = ""
    """Column with the text; empty: `data.text_field`."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that no message may show."""
        values = [self.password or ""]
        for name, given in self.options.items():
            if _SECRET_OPTION.search(name):
                values += given
        return tuple(value for value in values if value)


def is_sql(name: str) -> bool:
    """Return whether an entry of `data.corpus` is a `sql:` source."""
    return name.startswith(PREFIX)


def parse_sql_source(name: str) -> SqlSource:
    """Return the parts of a `sql:` source; raise `UserError` where it does not follow the grammar.

    A query that contains white space is taken as it is. One without is percent-encoded, with spaces
    as `%20` or `+`. All other parts are percent-encoded.
    """
    head, query = _split_query(name.removeprefix(PREFIX))
    dialect = _DIALECT.match(head)
    if dialect is None:
        # Nothing of it is quoted: where no URL is recognized, a password may stand anywhere.
        raise mismatch(where="data.corpus sql", found="no URL of a database", expected=_FORM)
    where = f"data.corpus {one_line(without_password(name))}"
    check(
        # What the shell gives for bytes that are not UTF-8, and no driver takes.
        not _UNDECODED.search(name),
        where=where,
        found="bytes that are not UTF-8",
        expected="text in UTF-8, or percent-encoded",
    )
    authority, path, listed = _split_url(head[dialect.end() :])
    check(
        # It may end a password that has what ends an authority.
        "@" not in path + listed,
        where=where,
        found="an @ behind the host, or a / or ? in the password",
        expected="them percent-encoded: %40, %2F, %3F",
    )
    user, password, host, port = _authority(authority, where)
    options = _options(listed, where)
    own = {key: options.pop(key, ("",))[-1] for key in _OWN_OPTIONS}
    check(
        # `query` is None where there is none, and "" where it is empty.
        (query is None) != (not own["table"]) and query != "",
        where=where,
        found="neither query= nor table=" if query is None else "no query, or a table beside it",
        expected=_FORM,
    )
    schema, table = _table(own["table"], where)
    return SqlSource(
        dialect=dialect[1],
        driver=dialect[2] or "",
        user=user,
        password=password,
        host=host,
        port=port,
        database=_plain(path, where) or None,
        options=options,
        query=_select(query, dialect[1], where) if query else "",
        schema=schema,
        table=table,
        column=own["column"],
    )


def without_password(name: str) -> str:
    """Return an entry of `data.corpus` without the password and other secrets in its URL.

    Entries that differ only in these name the same source. An entry without a URL comes back as it
    is.
    """
    scheme, separator, rest = name.partition("://")
    if not separator:
        return name
    head, _ = _split_query(rest)
    query = rest[len(head) :]
    authority, _, _ = _split_url(head)
    # The path of a file in a store may have both characters. A bucket's name has no colon.
    if is_sql(name) or ":" in authority:
        # To the last @: a password that should have been percent-encoded may hold one.
        user_info, _, _ = head.rpartition("@")
        user, _, _ = user_info.partition(":")
        head = user + head[len(user_info) :]
        # Where the host was forgotten, the password stands in place of the port.
        head = re.sub(r"^([^@:/?\[]*):(?!\d*(?:[/?]|$))[^/?]*", r"\1", head)
    if is_sql(name):
        head, query = _without_secret_options(head, query)
    return f"{scheme}://{head}{query}"


def _split_query(text: str) -> tuple[str, str | None]:
    """Return what stands before the query, and the query; None if there is none."""
    begin = _QUERY.search(text)
    if begin is None:
        return text, None
    return text[: begin.start()], text[begin.end() :]


def _split_url(rest: str) -> tuple[str, str, str]:
    """Return authority, path and options of a URL behind its `://`."""
    before_options, _, options = rest.partition("?")
    authority, _, path = before_options.partition("/")
    return authority, path, options


MAX_PORT_DIGITS = 40
"""Maximum number of digits of a port: 5, and zeros before them."""


def _authority(authority: str, where: str) -> tuple[str | None, str | None, str | None, int | None]:
    """Return user, password, host and port."""
    user_info, has_user, place = authority.rpartition("@")
    user, has_password, password = user_info.partition(":")
    # An IPv6 address has colons, and so stands in brackets (RFC 3986, section 3.2.2).
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::(\d*))?", place, re.ASCII)
    digits = match[3] if match else None
    # Of more than 4,300 digits `int` raises another error.
    port = int(digits) if digits and len(digits) <= MAX_PORT_DIGITS else None
    check(
        match is not None and (0 < port < 1 << 16 if port is not None else not digits),
        where=where,
        found="a host that cannot be read",
        expected="HOST or HOST:PORT, the port from 1 to 65535, an IPv6 address in brackets",
    )
    assert match is not None
    return (
        _plain(user, where) if has_user else None,
        _plain(password, where) if has_password else None,
        match[1] or match[2] or None,
        port,
    )


def _options(listed: str, where: str) -> dict[str, tuple[str, ...]]:
    """Return the values of each option behind `?`; of `table`, still encoded."""
    options: dict[str, tuple[str, ...]] = {}
    for option in filter(None, listed.split("&")):
        key, is_given, value = option.partition("=")
        check(
            # The option is not quoted: it may be a part of a secret one with an & in it.
            is_given and key,
            where=where,
            found="an option without a value",
            expected="OPTION=VALUE, with & between two of them",
        )
        key = _plain(key.replace("+", " "), where)
        if key != "table":
            value = _plain(value.replace("+", " "), where)
        options[key] = (*options.get(key, ()), value)
    return options


def _table(name: str, where: str) -> tuple[str | None, str]:
    """Return schema and table; a dot that is percent-encoded is part of a name."""
    schema, dot, table = name.replace("+", " ").rpartition(".")
    check(
        not dot or (schema and table),
        where=where,
        found="a dot at an end of the table's name",
        expected="TABLE or SCHEMA.TABLE (a dot that is part of a name as %2E)",
    )
    return _plain(schema, where) or None, _plain(table, where)


def _plain(encoded: str, where: str) -> str:
    try:
        return unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        # Nothing of the cause: it quotes the bytes, which may be a password.
        raise mismatch(
            where=where, found="percent-encoded bytes that are not UTF-8", expected="UTF-8"
        ) from None


def _without_secret_options(head: str, query: str) -> tuple[str, str]:
    url, _, listed = head.partition("?")
    options = listed.split("&")
    kept = [option for option in options if not _is_secret(option)]
    if len(kept) == len(options):
        return head, query
    if kept:
        return f"{url}?{'&'.join(kept)}", query
    # The query then follows the URL itself.
    return url, query.replace("&", "?", 1)


def _is_secret(option: str) -> bool:
    key, _, _ = option.partition("=")
    return _SECRET_OPTION.search(unquote_plus(key)) is not None


def _select(query: str, dialect: str, where: str) -> str:
    """Return the decoded query; raise `UserError` unless it is a single SELECT."""
    text = _decoded(query, where).strip().rstrip(";").rstrip()
    bare = _QUOTED.sub(" ", text)
    first = re.match(r"[\s(]*(\w*)", bare)
    assert first is not None
    check(
        first[1].lower() in ("select", "with"),
        where=where,
        found=f"a query that begins with {first[1]!r}",
        expected="one SELECT, or WITH ... SELECT",
    )
    check(
        first.end() < len(bare),
        where=where,
        found=f"nothing behind {first[1]}",
        expected="a whole query (with spaces in it, the source stands in quotes in a shell)",
    )
    # Where a backslash escapes a quote, depends on the dialect: then no semicolon may be anywhere.
    outside = text if re.search(r"\\['\"]", text) else bare
    check(
        ";" not in outside,
        where=where,
        found="a semicolon in the query",
        expected="one statement",
    )
    writes = _WRITES.search(bare)
    check(
        writes is None or dialect in READ_ONLY_DIALECTS,
        where=where,
        found=f"{writes[0] if writes else ''} in the query",
        expected="a SELECT that writes nothing (quote the name of a column)",
    )
    return text


def _decoded(query: str, where: str) -> str:
    # SQL needs white space somewhere, and a percent-encoded text has none.
    if re.search(r"\s", query.strip()):
        return query
    text = _plain(query, where)
    # A form has + for spaces, as `urllib.parse.urlencode` writes it. Otherwise + is a plus sign.
    return text if re.search(r"\s", text) else _plain(query.replace("+", " "), where)
