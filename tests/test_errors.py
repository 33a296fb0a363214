import sys

import pytest

from bertjax.errors import (
    MAX_FOUND,
    UserError,
    check,
    excerpt,
    nearest,
    needs_extra,
    require_package,
)


def test_a_message_quotes_no_more_than_the_beginning_of_a_long_text():
    assert excerpt("a [MASK] b") == "'a [MASK] b'"
    assert excerpt("x" * 60) == repr("x" * 60)
    assert excerpt("x" * 61) == repr("x" * 60) + "..."
    with pytest.raises(UserError) as caught:
        check(False, where="here", found="x" * 10_000, expected="less")
    assert str(caught.value) == f"here: found {'x' * MAX_FOUND}..., expected less"


def test_the_nearest_name_is_named_where_one_is_near():
    assert nearest("tini", ["base", "tiny"]) == "; the nearest is tiny"
    assert nearest("tini", ["base"]) == nearest("tini", []) == ""


def test_a_missing_package_is_a_line_that_says_what_to_install():
    with pytest.raises(UserError) as caught, needs_extra("data"):
        import no_such_package_at_all  # noqa: F401
    expected = "it to be installed: pip install 'bertjax[data]'"
    assert (
        str(caught.value) == f"no_such_package_at_all: found no such package, expected {expected}"
    )


def test_other_errors_of_an_import_stay():
    with pytest.raises(ZeroDivisionError), needs_extra("data"):
        1 / 0  # noqa: B018


def test_a_required_package_is_looked_for_without_importing_it(monkeypatch):
    require_package("json", extra="data")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(
        UserError, match="^tensorflow: found no such package, expected it to be ins"
    ):
        require_package("tensorflow", extra="data")
