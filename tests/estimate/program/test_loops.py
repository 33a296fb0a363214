import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.estimate.program.hlo import parse
from bertjax.estimate.program.loops import trip_count

SQUARE = [((512, 512), jnp.bfloat16, ())] * 2
ALL = {"data": 4}

LOOP = """HloModule loop, is_scheduled=true

%condition (p: (s32[], f32[8])) -> pred[] {{
  %p = (s32[], f32[8]{{0}}) parameter(0)
  %bound = s32[] constant({bound})
  %counter = s32[] get-tuple-element(%p), index=0
  ROOT %test = pred[] compare(%counter, %bound), direction={direction}
}}

%body (p.1: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %p.1 = (s32[], f32[8]{{0}}) parameter(0)
  %counter.1 = s32[] get-tuple-element(%p.1), index=0
  %step = s32[] constant({step})
  %next = s32[] add({sum})
  %x = f32[8]{{0}} get-tuple-element(%p.1), index=1
  ROOT %both = (s32[], f32[8]{{0}}) tuple(%next, %x)
}}

ENTRY %main (x.1: f32[8]) -> f32[8] {{
  %x.1 = f32[8]{{0}} parameter(0)
  %start = s32[] constant({start})
  %copied = s32[] copy(%start)
  %carried = (s32[], f32[8]{{0}}) tuple(%copied, %x.1)
  %while = (s32[], f32[8]{{0}}) while(%carried), condition=%condition, body=%body
  ROOT %out = f32[8]{{0}} get-tuple-element(%while), index=1
}}
"""

COMPARE = {
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "NE": lambda a, b: a != b,
}


def passes(text):
    module = parse(text)
    return trip_count(module, module.entry, module.entry.instructions["while"], None)


@given(
    st.sampled_from(sorted(COMPARE)),
    st.integers(-20, 20),
    st.integers(-20, 20),
    st.integers(1, 5),
    st.booleans(),
)
def test_a_counted_loop_runs_as_often_as_it_does_when_played(
    direction, start, bound, size, swapped
):
    step = -size if direction in ("GT", "GE") else size
    played, counter = 0, start
    while COMPARE[direction](counter, bound) and played < 1000:
        played, counter = played + 1, counter + step
    order = "%step, %counter.1" if swapped else "%counter.1, %step"
    text = LOOP.format(bound=bound, direction=direction, step=step, start=start, sum=order)
    assert passes(text) == (None if played == 1000 else played)


def test_what_the_compiler_says_of_a_loop_goes_first():
    text = LOOP.format(bound=9, direction="LT", step=1, start=0, sum="%counter.1, %step")
    text = text.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}')
    assert passes(text) == 5


def test_a_loop_that_stops_by_its_numbers_is_of_unknown_length():
    text = LOOP.format(bound=9, direction="LT", step=1, start=0, sum="%counter.1, %counter.1")
    assert passes(text) is None


def scanned(length):
    def make(mesh):
        def run(x, w):
            return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=length)[0]

        return run

    return make


def loops_of(compiled):
    return [cost for cost in compiled.schedule().costs if cost.times > 1]


def test_a_scan_of_14_costs_twice_a_scan_of_7(compile_for):
    short, long = (compile_for(scanned(n), SQUARE, ALL) for n in (7, 14))
    assert {cost.times for cost in loops_of(short)} == {7}
    assert {cost.times for cost in loops_of(long)} == {14}
    seven, fourteen = (sum(cost.total for cost in loops_of(c)) for c in (short, long))
    assert seven > 0
    assert fourteen == pytest.approx(2 * seven)


def test_loops_in_loops_multiply(compile_for):
    def make(mesh):
        def inner(x, w):
            return jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ w), x)

        return lambda x, w: jax.lax.scan(lambda x, _: (inner(x, w) * 2, None), x, None, length=3)[0]

    schedule = compile_for(make, SQUARE, ALL).schedule()
    assert max(cost.times for cost in schedule.costs) == 15
    assert schedule.unknown_loops == ()


def test_a_loop_that_runs_until_it_converges_is_counted_once_and_named(compile_for):
    def make(mesh):
        def run(x, w):
            return jax.lax.while_loop(
                lambda x: jnp.sum(x.astype(jnp.float32)) > 1, lambda x: jnp.tanh(x @ w), x
            )

        return run

    schedule = compile_for(make, SQUARE, ALL).schedule()
    assert len(schedule.unknown_loops) == 1
    assert "while" in schedule.unknown_loops[0]
    assert {cost.times for cost in schedule.costs} == {1}
