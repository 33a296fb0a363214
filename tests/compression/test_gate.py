"""The bound: what is allowed passes, what is not ends with status 3."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.cli import main
from bertjax.compression.figures import Figure
from bertjax.compression.gate import (
    BoundError,
    check_loss,
    loss_text,
    parse_bound,
    percent,
    relative_loss,
)
from bertjax.errors import UserError


def figure(value, *, higher=True, count=10):
    return Figure("spearman" if higher else "mlm_loss", value, higher, "pairs", count)


def test_a_loss_above_the_bound_is_one_line_with_both_values():
    with pytest.raises(BoundError) as caught:
        check_loss("int8 per tensor", figure(0.8095), figure(0.8002), 0.005)
    expected = "int8 per tensor: spearman 0.8002, 1.15 % below 0.8095; allowed 0.5 %"
    assert str(caught.value) == expected
    check_loss("int8 per channel", figure(0.8095), figure(0.8088), 0.005)


def test_the_command_line_ends_with_the_status_of_the_error(monkeypatch, capsys):
    def run(words):
        raise BoundError("too much\nis lost")

    monkeypatch.setattr(main, "verb_module", lambda verb: type("Verb", (), {"run": run}))
    assert main.main(["quantize"]) == 3
    assert capsys.readouterr().err == "bertjax: too much is lost\n"


@given(
    st.floats(0.01, 100),
    st.floats(-0.99, 0.99).filter(lambda share: share == 0 or abs(share) > 1e-6),
    st.booleans(),
    st.floats(0, 0.99),
)
def test_the_gate_lets_through_exactly_what_loses_no_more(before, share, higher, bound):
    after = before * (1 - share) if higher else before * (1 + share)
    first, second = figure(before, higher=higher), figure(after, higher=higher)
    loss = relative_loss(first, second)
    assert loss == pytest.approx(share, abs=1e-9)
    if loss > bound:
        with pytest.raises(BoundError, match=r"; allowed .* %"):
            check_loss("int8", first, second, bound)
    else:
        check_loss("int8", first, second, bound)


def test_figures_that_cannot_be_compared_are_refused():
    assert relative_loss(figure(0.0), figure(-0.1)) == math.inf
    assert relative_loss(figure(0.0), figure(0.1)) == 0
    assert relative_loss(figure(-0.2), figure(-0.3)) == pytest.approx(0.5)
    assert relative_loss(figure(0.5), figure(math.nan)) == math.inf
    with pytest.raises(BoundError, match="spearman nan, before 0.5000; allowed 1 %"):
        check_loss("int8", figure(0.5), figure(math.nan), 0.01)
    with pytest.raises(UserError, match="found nan before the compression"):
        relative_loss(figure(math.nan), figure(0.5))
    with pytest.raises(UserError, match="figure: count: found 9, expected 10, as before"):
        relative_loss(figure(0.5), figure(0.5, count=9))
    with pytest.raises(UserError, match="figure: name: found mlm_loss, expected spearman"):
        relative_loss(figure(0.5), figure(0.5, higher=False))


@pytest.mark.parametrize(
    ("text", "share"), [("0.5%", 0.005), ("0 %", 0.0), ("12%", 0.12), (" 99.9% ", 0.999)]
)
def test_a_bound_is_a_percentage(text, share):
    assert parse_bound(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text", ["", "%", "0.5", "0,5%", "-1%", "nan%", "inf%", "1e-3%", "100%", "5%%", "٣%", "half"]
)
def test_any_other_bound_is_refused(text):
    with pytest.raises(UserError, match="--max-loss: found .*, expected a percentage from 0%"):
        parse_bound(text)


def test_what_is_not_zero_is_not_shown_as_zero():
    assert percent(0.005) == "0.5 %"
    assert percent(0.0) == "0 %"
    assert percent(0.0000004) == "4.0e-05 %"
    assert loss_text(figure(2.0, higher=False), figure(2.1, higher=False)) == (
        "mlm_loss 2.1000, 5 % above 2.0000"
    )
