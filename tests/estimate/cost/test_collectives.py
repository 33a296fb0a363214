import json

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bertjax.estimate.cost.collectives import DevicePlacement, transfer_of
from bertjax.estimate.hardware.chips import CHIPS
from bertjax.estimate.program.hlo import parse

AXES = {"data": 2, "tensor": 2}
ROWS, COLUMNS = 2048, 1024
BLOCK = ROWS * COLUMNS * 4 // 4  # bytes that each of the four devices holds
LINK = CHIPS["v5e"].link_bandwidth

CASES = {
    "psum": (lambda x: jax.lax.psum(x, "data"), "all-reduce", ("data",), BLOCK),
    "psum over all": (
        lambda x: jax.lax.psum(x, ("data", "tensor")),
        "all-reduce",
        ("data", "tensor"),
        BLOCK,
    ),
    "all_gather": (
        lambda x: jax.lax.all_gather(x, "tensor", tiled=True),
        "all-gather",
        ("tensor",),
        2 * BLOCK,
    ),
    "psum_scatter": (
        lambda x: jax.lax.psum_scatter(x, "data", tiled=True),
        "reduce-scatter",
        ("data",),
        BLOCK,
    ),
    "all_to_all": (
        lambda x: jax.lax.all_to_all(x, "tensor", 0, 1, tiled=True),
        "all-to-all",
        ("tensor",),
        BLOCK,
    ),
    "ppermute": (
        lambda x: jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]),
        "collective-permute",
        ("data",),
        BLOCK,
    ),
}


def joining(function):
    def make(mesh):
        cut = P("data", "tensor")
        return jax.shard_map(
            lambda x: jnp.tanh(function(jnp.tanh(x))),
            mesh=mesh,
            in_specs=cut,
            out_specs=cut,
            check_vma=False,
        )

    return make


@pytest.mark.parametrize("name", CASES)
def test_a_collective_is_named_with_its_axes_and_bytes(compile_for, name):
    function, kind, axes, size = CASES[name]
    compiled = compile_for(
        joining(function), [((ROWS, COLUMNS), jnp.float32, ("data", "tensor"))], AXES
    )
    (transfer,) = [cost.transfer for cost in compiled.schedule().costs if cost.transfer]
    assert (transfer.kind, transfer.axes, transfer.bytes) == (kind, axes, size)
    # At least what one device must send, by as many links as it has; at most all of it twice, by
    # one link.
    assert size / 4 / CHIPS["v5e"].ici_bandwidth < transfer.seconds <= 2 * size / LINK


def test_a_collective_in_a_scan_runs_as_often_as_the_scan(compile_for):
    def make(mesh):
        def local(x):
            return jax.lax.scan(
                lambda x, _: (jnp.tanh(jax.lax.psum(x, "data")), None), x, None, length=6
            )[0]

        cut = P("data", "tensor")
        return jax.shard_map(local, mesh=mesh, in_specs=cut, out_specs=cut, check_vma=False)

    schedule = compile_for(
        make, [((ROWS, COLUMNS), jnp.float32, ("data", "tensor"))], AXES
    ).schedule()
    (cost,) = [cost for cost in schedule.costs if cost.transfer]
    assert cost.times == 6
    assert cost.total == 6 * cost.transfer.seconds


def test_sharded_parameters_are_gathered_beside_other_work_and_counted_once(compile_for):
    # Matrix products with parameters cut over `data`: the compiler spreads a gather over several
    # operations.
    def make(mesh):
        def loss(x, w):
            return jnp.sum(
                jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0].astype(jnp.float32)
            )

        return jax.grad(loss, argnums=1)

    layers, width = 7, 2048
    compiled = compile_for(
        make,
        [
            ((4096, width), jnp.bfloat16, ("data",)),
            ((layers, width, width), jnp.bfloat16, (None, "data")),
        ],
        {"data": 4},
    )
    moved = [
        cost
        for cost in compiled.schedule().costs
        if cost.transfer and cost.transfer.kind == "all-gather"
    ]
    size = width * width * 2
    assert {(cost.transfer.axes, cost.transfer.bytes) for cost in moved} == {(("data",), size)}
    # One a layer forward and one a layer backward, but for those that are done ahead outside the
    # loops.
    assert 2 * layers - 2 <= sum(cost.times for cost in moved) <= 2 * layers + 2
    assert any(cost.transfer.overlapped for cost in moved)
    assert all(cost.total == 0 for cost in moved if cost.transfer.overlapped)


def test_slices_are_joined_over_the_slow_network(slice_2x2):
    from bertjax.estimate.cost.schedule import schedule
    from bertjax.estimate.hardware.slices import open_slice

    two = open_slice("v5e:2x2", 2)
    devices = mesh_utils.create_hybrid_device_mesh((1, 2, 2), (2, 1, 1), devices=two.devices)
    axes = {"replica": 2, "data": 2, "fsdp": 2}
    mesh = Mesh(devices, tuple(axes), axis_types=(AxisType.Auto,) * 3)
    weight = jax.ShapeDtypeStruct(
        (2048, 2048), jnp.float32, sharding=NamedSharding(mesh, P("fsdp"))
    )
    rows = jax.ShapeDtypeStruct(
        (4096, 2048), jnp.bfloat16, sharding=NamedSharding(mesh, P(tuple(axes)))
    )
    gradient = jax.jit(
        jax.grad(lambda w, x: jnp.mean(jnp.tanh(x @ w) ** 2)), out_shardings=weight.sharding
    )
    module = parse(gradient.lower(weight, rows).compile().as_text())
    placement = DevicePlacement(axes, tuple(device.slice_index for device in devices.flat))
    moved = [cost.transfer for cost in schedule(module, placement, two.chip).costs if cost.transfer]
    (slow,) = [transfer for transfer in moved if transfer.axes == ("replica",)]
    assert slow.kind == "all-reduce"
    # Of the gradient that two devices of a slice share, each sends the half of its half that it has
    # summed.
    assert slow.bytes == pytest.approx(2048 * 2048 * 4 / 4, rel=0.1)
    assert slow.seconds == pytest.approx(slow.bytes / two.chip.dcn_bandwidth)
    assert {axis for transfer in moved for axis in transfer.axes} == {"replica", "data", "fsdp"}


def transfer_in(line, placement):
    text = f"HloModule m\n\nENTRY %main (x: f32[8]) -> f32[8] {{\n  %x = f32[8]{{0}} parameter(0)\n  ROOT {line}\n}}\n"
    module = parse(text)
    return transfer_of(module, module.entry.root, placement, CHIPS["v5e"])


def test_devices_are_numbered_within_a_slice_and_hosts_send_between_slices():
    # `replica` is not the first axis here, and slices have two devices each.
    placement = DevicePlacement({"data": 2, "replica": 2}, (0, 1, 0, 1))
    sent = 'send(%x), frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}'
    across = transfer_in(f"%r = (f32[1000]{{0}}, u32[], token[]) {sent}", placement)
    within = transfer_in(
        "%r = f32[1000]{0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add", placement
    )
    assert across.axes == ("replica",)
    assert within.axes == ("data",)
    assert across.seconds == pytest.approx(4000 / CHIPS["v5e"].dcn_bandwidth)
    assert within.seconds == pytest.approx(4000 / (2 * LINK))


def test_what_rings_send():
    placement = DevicePlacement({"data": 4}, (0,) * 4)
    groups = "replica_groups={{0,1,2,3}}"
    gathered = transfer_in(
        f"%r = f32[4000]{{0}} all-gather(%x), {groups}, dimensions={{0}}", placement
    )
    assert (gathered.bytes, gathered.seconds) == (16000, pytest.approx(0.75 * 16000 / (2 * LINK)))
    scattered = transfer_in(
        f"%r = f32[1000]{{0}} reduce-scatter(%x), {groups}, dimensions={{0}}", placement
    )
    assert (scattered.bytes, scattered.seconds) == (16000, pytest.approx(0.75 * 16000 / (2 * LINK)))
    reduced = transfer_in(f"%r = f32[4000]{{0}} all-reduce(%x), {groups}", placement)
    assert reduced.seconds == pytest.approx(1.5 * 16000 / (2 * LINK))
    started = transfer_in(
        f"%r = (f32[1000]{{0}}, f32[4000]{{0}}) all-gather-start(%x), {groups}, dimensions={{0}}",
        placement,
    )
    assert started.overlapped
    assert started.bytes == 16000
    assert transfer_in("%r = f32[1000]{0} negate(%x)", placement) is None


SCATTERED_TOGETHER = """HloModule m

%both (a: f32[4000], b: f32[800]) -> (f32[1000], f32[200]) {
  %a = f32[4000]{0} parameter(0)
  %b = f32[800]{0} parameter(1)
  %sum = (f32[4000]{0}, f32[800]{0}) all-reduce(%a, %b), replica_groups={{0,1,2,3}}, to_apply=%add
  %a.sum = f32[4000]{0} get-tuple-element(%sum), index=0
  %b.sum = f32[800]{0} get-tuple-element(%sum), index=1
  %a.part = f32[1000]{0} dynamic-slice(%a.sum), dynamic_slice_sizes={1000}
  %b.part = f32[200]{0} dynamic-slice(%b.sum), dynamic_slice_sizes={200}
  ROOT %parts = (f32[1000]{0}, f32[200]{0}) tuple(%a.part, %b.part)
}

ENTRY %main (x: f32[4000], y: f32[800]) -> (f32[1000], f32[200]) {
  %x = f32[4000]{0} parameter(0)
  %y = f32[800]{0} parameter(1)
  ROOT %r = (f32[1000]{0}, f32[200]{0}) fusion(%x, %y), kind=kCustom, calls=%both, backend_config=CONFIG
}
"""


@pytest.mark.parametrize("emitter", ["AllReduceScatterFusion", "SingleInputAllReduceScatterFusion"])
def test_a_sum_of_which_each_device_takes_its_part_is_a_reduce_scatter(emitter):
    config = json.dumps(
        {"collective_algorithm_config": {"emitter": emitter, "debug": "StrategyRing{colors:1 }"}}
    )
    module = parse(SCATTERED_TOGETHER.replace("CONFIG", config))
    transfer = transfer_of(
        module, module.entry.root, DevicePlacement({"data": 4}, (0,) * 4), CHIPS["v5e"]
    )
    assert (transfer.kind, transfer.bytes) == ("reduce-scatter", 4800 * 4)
    assert transfer.seconds == pytest.approx(0.75 * 4800 * 4 / LINK)
