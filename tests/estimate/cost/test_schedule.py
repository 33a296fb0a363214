import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from bertjax.estimate.cost.collectives import DevicePlacement
from bertjax.estimate.cost.program_flops import program_flops
from bertjax.estimate.cost.schedule import schedule
from bertjax.estimate.hardware.chips import CHIPS
from bertjax.estimate.program.hlo import parse

ALL = {"data": 4}
ROWS = [((4096, 1024), jnp.float32, ("data",))]
V5E = CHIPS["v5e"]


def kernel(cost):
    def local(x):
        return pl.pallas_call(
            lambda x_ref, y_ref: y_ref.__setitem__(..., x_ref[...] * 2),
            out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
            grid=(16,),
            in_specs=[pl.BlockSpec((64, 1024), lambda i: (i, 0))],
            out_specs=pl.BlockSpec((64, 1024), lambda i: (i, 0)),
            cost_estimate=cost,
        )(x)

    return lambda mesh: jax.shard_map(
        local, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False
    )


@pytest.mark.parametrize(
    ("flops", "moved", "seconds"),
    [(10**12, 10**6, 10**12 / V5E.peak_flops), (10**6, 10**9, 10**9 / V5E.hbm_bandwidth)],
    ids=["by its products", "by its bytes"],
)
def test_a_kernel_costs_what_it_states(compile_for, flops, moved, seconds):
    compiled = compile_for(
        kernel(pl.CostEstimate(flops=flops, bytes_accessed=moved, transcendentals=0)), ROWS, ALL
    )
    step = compiled.schedule()
    (cost,) = [cost for cost in step.costs if cost.basis == "kernel"]
    assert cost.total == pytest.approx(seconds)
    assert program_flops(compiled.module, step) == 0  # what a kernel does is not shown


def test_a_kernel_that_states_nothing_is_counted_by_what_comes_out_and_marked(compile_for):
    (cost,) = [
        c for c in compile_for(kernel(None), ROWS, ALL).schedule().costs if "kernel" in c.basis
    ]
    assert cost.basis == "kernel bytes"
    assert cost.total == pytest.approx(1024 * 1024 * 4 / V5E.hbm_bandwidth)


def test_a_step_is_the_sum_of_its_cycles_over_the_clock(compile_for):
    compiled = compile_for(lambda mesh: lambda x: jnp.tanh(x) @ x.T[:, :512], ROWS, ALL)
    cycles = sum(i.cycles or 0 for i in compiled.module.entry.instructions.values())
    step = compiled.schedule()
    by_cycles = sum(cost.total for cost in step.costs if cost.basis == "cycles")
    assert by_cycles == pytest.approx(cycles / 1.503e9, rel=1e-3)
    assert step.seconds == pytest.approx(sum(cost.total for cost in step.costs))


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_conditional_the_most_expensive_branch_counts(compile_for, order):
    def expensive(x):
        return jnp.tanh(x @ x.T @ x)

    def either(mesh):
        branches = (expensive, lambda x: x + 1)[::order]
        return lambda x: jax.lax.cond(jnp.sum(x) > 0, *branches, x)

    both, alone = (
        compile_for(make, [((1024, 512), jnp.bfloat16, ())], ALL).schedule()
        for make in (either, lambda mesh: expensive)
    )

    def products(branch):
        return sum(cost.total for cost in branch.costs if "dot_general" in cost.instruction.op_name)

    assert products(alone) > 0
    assert products(both) == pytest.approx(products(alone), rel=0.05)


def test_what_takes_no_time_and_what_has_no_estimate():
    text = """HloModule m

ENTRY %main (x: f32[1024]) -> f32[1024] {
  %x = f32[1024]{0} parameter(0)
  %one = f32[] add(%x, %x)
  %started = (f32[1024]{0}, f32[1024]{0}, u32[]) copy-start(%x)
  %done = f32[1024]{0} copy-done(%started)
  %made = f32[1024]{0} custom-call(%done), custom_call_target="ConcatBitcast"
  ROOT %sorted = f32[1024]{0} sort(%made), dimensions={0}
}
"""
    (cost,) = schedule(parse(text), DevicePlacement(ALL, (0,) * 4), V5E).costs
    assert (cost.instruction.name, cost.basis) == ("sorted", "bytes")
    assert cost.total == pytest.approx(2 * 4096 / V5E.hbm_bandwidth)
